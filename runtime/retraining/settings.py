"""Settings of the retraining service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ..common.settings import LakeSettings, PromoteSettings, RegistrySettings, ServiceSettings, Settings

Reason = Literal["no-champion", "drift"]


class RetrainedModel(Settings):
    """A model that the service retrains."""

    name: str
    code: Path = Field(description="Absolute folder in which the command runs.")
    command: list[str] = Field(min_length=1, description="Training command; `python` is the service's own Python.")
    data: str = Field(description="Address of its data: REPOSITORY/BRANCH/PATH in the lake.")
    promote: PromoteSettings = PromoteSettings()
    cooldown: float = Field(default=86400.0, ge=0, description="Minimum seconds between two drift retrainings.")
    triggers: list[Reason] = Field(default=["no-champion", "drift"], description="Alerts that start a retraining.")
    promotion: Literal["automatic", "manual"] = Field(
        default="automatic", description="`manual` stops at the alias `challenger`."
    )
    timeout: float = Field(default=3600.0, gt=0, description="Seconds after which a training is cancelled.")
    backoff: float = Field(
        default=5.0, gt=0, description="Seconds to wait after a training without a champion; doubled each time."
    )


class ProcessSettings(Settings):
    """Jobs run as processes of the same machine."""

    kind: Literal["process"] = "process"


class RunnerAccess(Settings):
    """Jobs run in the runner, a service in a separate container."""

    kind: Literal["runner"]
    url: str = Field(description="URL of the runner.")
    token_file: Path = Field(description="File with the runner's bearer token.")


class TaskSettings(Settings):
    """Jobs run as ECS tasks, with one task definition per model."""

    kind: Literal["ecs"]
    cluster: str = Field(description="ARN of the cluster.")
    definitions: dict[str, str] = Field(description="Model -> ARN of its training task definition.")
    subnets: list[str] = Field(min_length=1, description="Subnets of the tasks.")
    security_groups: list[str] = Field(min_length=1, description="Security groups of the tasks.")
    records: str = Field(pattern=r"^s3://[^/]+/.+$", description="S3 location of the jobs' records.")
    log_group: str = Field(description="CloudWatch log group of the tasks.")
    tags: dict[str, str] = Field(default_factory=dict[str, str], description="Tags of the tasks.")


LauncherSettings = Annotated[ProcessSettings | RunnerAccess | TaskSettings, Field(discriminator="kind")]
"""How jobs run; each kind is a `Launcher`."""


class RetrainingSettings(ServiceSettings):
    """Settings of the retraining service; Alertmanager sends the token of `listen`."""

    runtime: Path = Field(description="File with the RuntimeSettings for jobs.")
    registry: RegistrySettings
    lake: LakeSettings
    state: Path = Field(description="Folder for the database and the jobs' logs.")
    launcher: LauncherSettings = Field(default=ProcessSettings(), description="How jobs run.")
    models: list[RetrainedModel] = Field(default_factory=list[RetrainedModel])
