"""The settings of the model server."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ..common.settings import RegistrySettings, ServiceSettings, Settings

EngineName = Literal["linear", "tl2cgen", "onnxruntime", "treelite"]
Trusted = Literal["pickle"]


class CaptureSettings(Settings):
    """Which requests are captured, for how long, and when segments are written."""

    directory: Path = Field(description="Folder for segments and labels.")
    fraction: float = Field(default=1.0, ge=0.0, le=1.0, description="Share of requests to capture.")
    segment_rows: int = Field(default=50_000, ge=1, description="Write a segment when it has this many rows.")
    segment_seconds: float = Field(default=5.0, gt=0, description="Write a segment when its first row is this old.")
    journal_seconds: float = Field(
        default=0.5, gt=0, le=1.0, description="Maximum time until a row is in the journal, which survives a crash."
    )
    held_rows: int = Field(default=100_000, ge=1, description="Maximum rows in memory; further rows are dropped.")
    leave_out: list[str] = Field(default_factory=list[str], description="Columns that are not captured.")
    hash: list[str] = Field(
        default_factory=list[str], description="Columns captured only as a keyed hash (HMAC-SHA-256)."
    )
    hash_key_file: Path | None = Field(default=None, description="File with the key of these hashes.")
    retention_days: float | None = Field(
        default=None, gt=0, description="Age at which captured rows and labels are deleted; None keeps them."
    )

    @model_validator(mode="after")
    def _hash_needs_a_key(self) -> CaptureSettings:
        if self.hash and self.hash_key_file is None:
            raise ValueError("hash requires hash_key_file: without a key, hashes can be reversed by guessing")
        return self


class LabelSettings(Settings):
    """Which labels are accepted."""

    allow_new: bool = Field(
        default=False, description="Accept labels of classes that the version did not have at training."
    )


class LimitSettings(Settings):
    """Limits for each request and for all requests of a worker."""

    body_bytes: int = Field(default=16_000_000, ge=1, description="Size of a decompressed body.")
    rows: int = Field(default=10_000, ge=1, description="Rows or labels in one request.")
    columns: int = Field(default=10_000, ge=1, description="Columns or inputs in one request.")
    depth: int = Field(default=16, ge=2, description="Nesting depth of a JSON body.")
    text: int = Field(default=1_000_000, ge=1, description="Characters of one string.")
    body_seconds: float = Field(default=30.0, gt=0, description="Time to receive the body.")
    header_seconds: float = Field(default=15.0, gt=0, description="Time to receive the head of a request.")
    connections: int = Field(default=4_096, ge=1, description="Maximum number of open connections per worker.")
    answer_seconds: float = Field(
        default=30.0, gt=0, description="Maximum time to answer; after this, the answer is 503."
    )
    concurrency: int = Field(
        default=1_024, ge=1, description="Maximum requests in flight per worker; above this, the answer is 503."
    )
    per_key: int = Field(
        default=1_024,
        ge=1,
        description="Maximum requests in flight per API key and worker; above this, the answer is 429.",
    )
    queue_rows: int = Field(
        default=50_000, ge=1, description="Maximum rows waiting for the model; above this, the answer is 503."
    )
    queue_ms: float = Field(
        default=250.0, gt=0, description="Maximum expected wait for the model; above this, the answer is 503."
    )


class BatchSettings(Settings):
    """How requests are batched. A request goes to the model immediately if the model is idle."""

    rows: int = Field(default=64, ge=1, description="Maximum rows in one call of the model.")
    max_wait_ms: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="How long an idle model waits for more requests to batch; 0 does not wait.",
    )
    rows_independent: bool | None = Field(
        default=None,
        description="Whether the model's answer for a row does not depend on the other rows in the call. Only then "
        "can requests share a call. None: as declared in the model's metadata, else only if known from its classes.",
    )


class CompileSettings(Settings):
    """Whether models are compiled, and when a compiled model is served."""

    engines: list[EngineName] = Field(
        default_factory=lambda: list[EngineName](("linear", "tl2cgen", "onnxruntime", "treelite")),
        description="Engines to try, in order; empty: serve the original model.",
    )
    tolerance: float = Field(
        default=1e-6,
        ge=0,
        description="Maximum difference from the original model, absolute or relative, on its sample.",
    )


class OutputSettings(Settings):
    """What happens with unusual outputs of the model."""

    non_finite: Literal["return", "refuse"] = Field(
        default="return", description="`return` NaN and infinities, or `refuse` the request with 422."
    )


class IsolationSettings(Settings):
    """How models with requirements that differ from the server's are served."""

    mode: Literal["auto", "refuse"] = Field(
        default="auto", description="`auto`: run the model in its own environment; `refuse`: do not serve it."
    )
    build_seconds: float = Field(default=900.0, gt=0, description="Time to build the environment.")


class ServingSettings(ServiceSettings):
    """The settings of the server of one model."""

    model: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_.-]+$", description="Name of the registered model.")
    alias: str = Field(default="champion", min_length=1, description="Alias of the version to serve.")
    version: str | None = Field(
        default=None, pattern=r"^[0-9]+$", description="A fixed version to serve, instead of an alias."
    )
    path: Path | None = Field(default=None, description="Folder of a model to serve, instead of a registered model.")
    shadow: str | None = Field(
        default=None,
        min_length=1,
        description="Alias of a version that gets the same requests; its answers are only compared.",
    )
    registry: RegistrySettings | None = Field(default=None, description="The MLflow server; not used with `path`.")
    capture: CaptureSettings | None = Field(default=None, description="Capture of requests; None captures nothing.")
    labels: LabelSettings = LabelSettings()
    poll_seconds: float = Field(default=2.0, gt=0, description="Mean time between two checks of the alias.")
    cache: Path = Field(description="Folder for downloaded versions; it can be deleted.")
    keys_file: Path | None = Field(
        default=None, description="JSON file with hashes of more API keys; the server reads it again when it changes."
    )
    workers: int = Field(default=1, ge=1, le=64, description="Worker processes on the port.")
    batch: BatchSettings = BatchSettings()
    compile: CompileSettings = CompileSettings()
    isolation: IsolationSettings = IsolationSettings()
    outputs: OutputSettings = OutputSettings()
    trust: list[Trusted] = Field(
        default_factory=list[Trusted],
        description="What the model's files may hold: `pickle` loads models that are stored as a pickle. Loading a "
        "pickle runs any code that its author put into it, as the user of the server.",
    )
    limits: LimitSettings = LimitSettings()
    drain_seconds: float = Field(
        default=0.0, ge=0, le=300, description="At SIGTERM, time between reporting not ready and closing the port."
    )
    access_log: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of successful requests in the access log; failed requests are always logged.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> ServingSettings:
        if (self.path is None) == (self.registry is None):
            raise ValueError("set exactly one of registry and path")
        if self.version is not None and self.path is not None:
            raise ValueError("version needs a registry and cannot be combined with path")
        if self.shadow is not None and (self.path is not None or self.version is not None):
            raise ValueError("shadow needs an alias and cannot be combined with version or path")
        return self
