"""Settings of the runner."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from ...common.settings import ServiceSettings, Settings


class AllowedTraining(Settings):
    """A training that the runner may run."""

    model: str = Field(description="Name of the model it trains.")
    command: list[str] = Field(min_length=1, description="The command; `python` is the runner's own Python.")
    code: Path = Field(description="Absolute folder in which it runs.")


class RunnerSettings(ServiceSettings):
    """Settings of the runner; the retraining service sends the token of `listen`."""

    state: Path = Field(description="Folder for the jobs' records and logs.")
    runtime: Path = Field(description="File with the RuntimeSettings for jobs.")
    trainings: list[AllowedTraining] = Field(description="The only trainings that it runs.")
