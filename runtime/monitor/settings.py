"""Settings of the monitor service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from ..common.settings import LakeSettings, RegistrySettings, ServiceSettings, Settings


class MonitoredModel(Settings):
    """A monitored model."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="Name of the registered model.")
    capture: Path = Field(description="Folder with its capture and labels.")
    data: str = Field(
        pattern=r"^[^/\s]+/[^/\s]+/[^/\s].*$", description="Address for labelled windows: REPOSITORY/BRANCH/PATH."
    )
    target: str = Field(min_length=1, description="Name of the target column.")
    window: float = Field(
        default=30 * 86400.0, gt=0, description="Length of the compared window, in seconds of event time."
    )
    label_delay: float = Field(default=86400.0, ge=0, description="Seconds until labels are expected.")
    min_rows: int = Field(default=200, ge=1, description="Minimum rows of a window that is scored.")
    drift_threshold: float = Field(default=0.1, gt=0, description="Distance at which a feature counts as drifted.")
    publish_min_rows: int = Field(default=1000, ge=1, description="Minimum labelled rows of a published window.")
    max_share_per_key: float = Field(
        default=0.5, gt=0, le=1, description="Maximum share of one API key in the labels of a published window."
    )
    allow_new_labels: bool = Field(default=False, description="Use labels of classes that training did not have.")
    retention_days: float | None = Field(
        default=None, gt=0, description="Age at which the model server deletes days; None keeps them."
    )
    alias: str = Field(default="champion", min_length=1, description="Alias of the serving version.")


class MonitorSettings(ServiceSettings):
    """Settings of the monitor service."""

    lake: LakeSettings
    registry: RegistrySettings
    state: Path = Field(description="Folder for the publishing state and downloaded references.")
    interval_seconds: float = Field(default=5.0, gt=0, description="Seconds between two checks.")
    models: list[MonitoredModel] = Field(default_factory=list[MonitoredModel])
