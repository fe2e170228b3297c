"""Settings of the service which runs trainings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from ...common.settings import ServiceSettings, Settings

__all__ = ["AllowedTraining", "RunnerSettings"]


class AllowedTraining(Settings):
    """A command which may be run."""

    model: str = Field(description="Name of the model it trains.")
    command: list[str] = Field(min_length=1, description="The command; `python` is the service's own Python.")
    code: Path = Field(description="Absolute folder in which it runs.")


class RunnerSettings(ServiceSettings):
    """What the service needs; the token of `listen` is the one which the retraining service brings."""

    state: Path = Field(description="Folder for the jobs' records and logs.")
    runtime: Path = Field(description="File with the RuntimeSettings which jobs get.")
    trainings: list[AllowedTraining] = Field(description="All that it ever runs.")
