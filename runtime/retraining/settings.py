"""Settings of the retraining service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ..common.settings import LakeSettings, PromoteSettings, RegistrySettings, ServiceSettings, Settings

__all__ = [
    "LauncherSettings",
    "ProcessSettings",
    "Reason",
    "RetrainedModel",
    "RetrainingSettings",
    "RunnerAccess",
    "TaskSettings",
]

Reason = Literal["no-champion", "drift"]


class RetrainedModel(Settings):
    """A model which the service keeps fresh."""

    name: str
    code: Path = Field(description="Absolute folder in which the command runs.")
    command: list[str] = Field(min_length=1, description="Command which trains; `python` is the service's own Python.")
    data: str = Field(description="Where its data lives: REPOSITORY/BRANCH/PATH in the lake.")
    promote: PromoteSettings = PromoteSettings()
    cooldown: float = Field(default=86400.0, ge=0, description="Least seconds from one drift training to the next.")
    triggers: list[Reason] = Field(default=["no-champion", "drift"], description="Alerts which lead to a training.")
    promotion: Literal["automatic", "manual"] = Field(
        default="automatic", description="`manual` stops at the alias challenger."
    )
    timeout: float = Field(default=3600.0, gt=0, description="Seconds after which a training is ended.")
    backoff: float = Field(
        default=5.0,
        gt=0,
        description="Seconds after a first training which brought no champion; doubled after each further one.",
    )


class ProcessSettings(Settings):
    """Jobs are processes beside the service."""

    kind: Literal["process"] = "process"


class RunnerAccess(Settings):
    """Jobs are run by the runner, a service in a container of its own."""

    kind: Literal["runner"]
    url: str = Field(description="Where the runner answers.")
    token_file: Path = Field(description="File with the token which it asks for.")


class TaskSettings(Settings):
    """Jobs are tasks of ECS, of a task definition for each model."""

    kind: Literal["ecs"]
    cluster: str = Field(description="ARN of the cluster.")
    definitions: dict[str, str] = Field(description="Model -> ARN of the task definition which trains it.")
    subnets: list[str] = Field(min_length=1, description="Subnets of the tasks.")
    security_groups: list[str] = Field(min_length=1, description="What lets tasks in and out.")
    records: str = Field(pattern=r"^s3://[^/]+/.+$", description="Where the jobs' records are kept.")
    log_group: str = Field(description="Where the tasks log.")
    tags: dict[str, str] = Field(default_factory=dict[str, str], description="Tags of the tasks.")


LauncherSettings = Annotated[ProcessSettings | RunnerAccess | TaskSettings, Field(discriminator="kind")]
"""How jobs are run; each kind is a `Launcher`."""


class RetrainingSettings(ServiceSettings):
    """What the retraining service needs; the token of `listen` is the one which Alertmanager brings."""

    runtime: Path = Field(description="File with the RuntimeSettings which jobs get.")
    registry: RegistrySettings
    lake: LakeSettings
    state: Path = Field(description="Folder for the turns and for the jobs' logs.")
    launcher: LauncherSettings = Field(default=ProcessSettings(), description="How jobs are run.")
    models: list[RetrainedModel] = Field(default_factory=list[RetrainedModel])
