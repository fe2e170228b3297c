"""Settings of the model server."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ..common.settings import RegistrySettings, ServiceSettings, Settings

__all__ = [
    "BatchSettings",
    "CaptureSettings",
    "CompileSettings",
    "EngineName",
    "IsolationSettings",
    "LimitSettings",
    "ServingSettings",
]

EngineName = Literal["linear", "tl2cgen", "onnxruntime", "treelite"]


class CaptureSettings(Settings):
    """What is kept of the traffic, for how long, and when a segment of it is written."""

    directory: Path = Field(description="Folder of the segments and of the labels.")
    fraction: float = Field(default=1.0, ge=0.0, le=1.0, description="Share of the requests which are captured.")
    segment_rows: int = Field(default=50_000, ge=1, description="A segment is written when it has this many rows,")
    segment_seconds: float = Field(default=5.0, gt=0, description="or when its first row is this old.")
    journal_seconds: float = Field(
        default=0.5, gt=0, le=1.0, description="Rows are in the journal, safe from a killed process, this soon."
    )
    held_rows: int = Field(default=100_000, ge=1, description="Rows kept in memory at most; further ones are dropped.")
    leave_out: list[str] = Field(default_factory=list[str], description="Columns which are not captured.")
    hash: list[str] = Field(
        default_factory=list[str], description="Columns of which only a keyed hash (HMAC-SHA-256) is captured."
    )
    hash_key_file: Path | None = Field(default=None, description="File which holds the key of those hashes.")
    retention_days: float | None = Field(
        default=None, gt=0, description="Captured rows and labels are deleted when they are this old; None keeps them."
    )

    @model_validator(mode="after")
    def _hash_needs_a_key(self) -> CaptureSettings:
        if self.hash and self.hash_key_file is None:
            raise ValueError("hash needs hash_key_file: without a key, a hash of a name is as good as the name")
        return self


class LimitSettings(Settings):
    """Bounds on one request, and on all of them together."""

    body_bytes: int = Field(default=8_000_000, ge=1, description="Size of a body, unpacked.")
    rows: int = Field(default=10_000, ge=1, description="Rows, or labels, in one request.")
    columns: int = Field(default=2_000, ge=1, description="Columns, or inputs, which a request may name.")
    depth: int = Field(default=16, ge=2, description="Nesting of a JSON body.")
    text: int = Field(default=100_000, ge=1, description="Characters of one string.")
    body_seconds: float = Field(default=30.0, gt=0, description="Time a client has to send its body.")
    header_seconds: float = Field(default=15.0, gt=0, description="Time a client has to send a request's head.")
    connections: int = Field(default=4_096, ge=1, description="Connections which one worker holds open.")
    answer_seconds: float = Field(default=30.0, gt=0, description="Time an answer may take; then 503.")
    concurrency: int = Field(default=1_024, ge=1, description="Requests under way in one worker; then 503.")
    per_key: int = Field(default=1_024, ge=1, description="Requests under way of one API key in one worker; then 429.")
    queue_rows: int = Field(default=50_000, ge=1, description="Rows which wait for the model; then 503.")
    queue_ms: float = Field(
        default=250.0, gt=0, description="Expected wait for the model beyond which requests are turned away with 503."
    )


class BatchSettings(Settings):
    """How requests are answered together. A request is sent to the model at once when that is idle."""

    rows: int = Field(default=64, ge=1, description="Rows in one call of the model at most, of several requests.")
    max_wait_ms: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="Time a request may wait for others although the model is idle. 0 sends at once.",
    )


class CompileSettings(Settings):
    """Whether a model may be compiled, and when the compiled one may serve."""

    engines: list[EngineName] = Field(
        default_factory=lambda: list[EngineName](("linear", "tl2cgen", "onnxruntime", "treelite")),
        description="Engines which are tried, in order; empty: the model itself serves.",
    )
    tolerance: float = Field(
        default=1e-6, ge=0, description="Largest difference from the model itself, absolute or relative, on its sample."
    )


class IsolationSettings(Settings):
    """What happens to a model whose requirements differ from this server's."""

    mode: Literal["auto", "refuse"] = Field(
        default="auto", description="`auto`: it runs in an environment of its own; `refuse`: it does not serve."
    )
    build_seconds: float = Field(default=900.0, gt=0, description="Time in which that environment must be built.")


class ServingSettings(ServiceSettings):
    """What the server of one model needs to know."""

    model: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_.-]+$", description="Name of the registered model.")
    alias: str = Field(default="champion", min_length=1, description="Alias which the server follows.")
    version: str | None = Field(
        default=None, pattern=r"^[0-9]+$", description="A version which is served for good, instead of an alias."
    )
    path: Path | None = Field(default=None, description="Folder of a model which is served instead of a registry's.")
    shadow: str | None = Field(
        default=None, min_length=1, description="Alias of a version which is asked the same besides, off the path."
    )
    registry: RegistrySettings | None = Field(default=None, description="How to reach MLflow; not needed with `path`.")
    capture: CaptureSettings | None = Field(default=None, description="Nothing is captured without it.")
    poll_seconds: float = Field(default=2.0, gt=0, description="Mean time between two looks at the alias.")
    cache: Path = Field(description="Folder for downloaded versions; lost, it is filled again.")
    keys_file: Path | None = Field(
        default=None, description="JSON file of further API keys, hashed; it is read again when it changes."
    )
    workers: int = Field(default=1, ge=1, le=64, description="Processes which answer on the one port.")
    batch: BatchSettings = BatchSettings()
    compile: CompileSettings = CompileSettings()
    isolation: IsolationSettings = IsolationSettings()
    limits: LimitSettings = LimitSettings()
    drain_seconds: float = Field(
        default=0.0, ge=0, le=300, description="Time between not being ready any more and closing the port, at SIGTERM."
    )
    access_log: float = Field(
        default=1.0, ge=0, le=1, description="Share of the answered requests which are logged; refused ones always are."
    )

    @model_validator(mode="after")
    def _one_source(self) -> ServingSettings:
        if (self.path is None) == (self.registry is None):
            raise ValueError("name exactly one of registry and path")
        if self.version is not None and self.path is not None:
            raise ValueError("version names one of the registry; it does not go with path")
        if self.shadow is not None and (self.path is not None or self.version is not None):
            raise ValueError("shadow goes with an alias: a version or folder which is served for good has none")
        return self
