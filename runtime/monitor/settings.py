"""Settings of the monitor service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from ..common.settings import LakeSettings, RegistrySettings, ServiceSettings, Settings

__all__ = ["MonitorSettings", "MonitoredModel"]


class MonitoredModel(Settings):
    """A model which is watched."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="Name of the registered model.")
    capture: Path = Field(description="Folder of its capture and labels.")
    data: str = Field(
        pattern=r"^[^/\s]+/[^/\s]+/[^/\s].*$", description="Where labelled windows go: REPOSITORY/BRANCH/PATH."
    )
    target: str = Field(min_length=1, description="Name of the target column.")
    window: float = Field(default=30 * 86400.0, gt=0, description="Seconds of event time which are compared.")
    label_delay: float = Field(default=86400.0, ge=0, description="Seconds which labels may take.")
    min_rows: int = Field(default=200, ge=1, description="Rows a window needs before it is judged.")
    drift_threshold: float = Field(default=0.1, gt=0, description="Distance at which a feature counts as drifted.")
    publish_min_rows: int = Field(default=1000, ge=1, description="Labelled rows which are worth a commit.")
    alias: str = Field(default="champion", min_length=1, description="Alias which is served.")


class MonitorSettings(ServiceSettings):
    """What the monitor service needs."""

    lake: LakeSettings
    registry: RegistrySettings
    state: Path = Field(description="Folder for what was published, and for downloaded references.")
    interval_seconds: float = Field(default=5.0, gt=0, description="Seconds between two looks at the capture.")
    models: list[MonitoredModel] = Field(default_factory=list[MonitoredModel])
