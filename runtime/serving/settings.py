"""Settings of the model server."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from tidemill.runtime.settings import RegistrySettings, ServiceSettings, Settings

__all__ = ["CaptureSettings", "LimitSettings", "ServingSettings"]


class CaptureSettings(Settings):
    """What is kept of the traffic, and when a segment of it is written."""

    directory: Path = Field(description="Folder of the segments and of the labels.")
    fraction: float = Field(default=1.0, ge=0.0, le=1.0, description="Share of the requests which are captured.")
    segment_rows: int = Field(default=5000, ge=1, description="A segment is written when it has this many rows,")
    segment_seconds: float = Field(default=2.0, gt=0, description="or when its first row is this old.")
    held_rows: int = Field(default=100_000, ge=1, description="Rows kept in memory at most; further ones are dropped.")


class LimitSettings(Settings):
    """Bounds on one request."""

    body_bytes: int = Field(default=8_000_000, ge=1, description="Size of a body.")
    rows: int = Field(default=10_000, ge=1, description="Rows, or labels, in one request.")
    body_seconds: float = Field(default=30.0, gt=0, description="Time a client has to send its body.")


class ServingSettings(ServiceSettings):
    """What the server of one model needs to know."""

    model: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_.-]+$", description="Name of the registered model.")
    alias: str = Field(default="champion", min_length=1, description="Alias which the server follows.")
    registry: RegistrySettings
    capture: CaptureSettings
    poll_seconds: float = Field(default=2.0, gt=0, description="Mean time between two looks at the alias.")
    cache: Path = Field(description="Folder for downloaded versions; lost, it is filled again.")
    limits: LimitSettings = LimitSettings()
