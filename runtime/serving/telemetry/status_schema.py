"""The schema of the JSON document at `/status`, which the status page shows. Any worker can answer for all."""

from __future__ import annotations

from typing import Any, Literal, TypedDict


class Lineage(TypedDict):
    """The origin of a version; None is unknown."""

    git_commit: str | None
    lake_repository: str | None
    lake_commit: str | None


class ColumnState(TypedDict):
    """An input column of the served version.

    Attributes:
        kind: its type in the signature: `boolean`, `integer`, `long`, `float`, `double`, `string`, `binary`,
            `datetime`, `tensor` or `json`.
        required: whether it must be present and not null.
    """

    name: str
    kind: str
    required: bool


class ServingState(TypedDict):
    """The served version.

    Attributes:
        loaded_at: RFC 3339 time in UTC.
        engine: such as `tl2cgen` or `sklearn`.
        compiled: whether the engine runs a compiled form of the logged model.
        engine_note: why the model is not compiled, or the largest difference between compiled and original answers.
        merges_requests: whether several requests can share a call of the model.
        merging_note: why not, and how to change it; empty if they can.
        output: `score`, `scores` or `prediction`.
        metrics: of its run when it was promoted; None is NaN or infinite.
        columns: its inputs.
        example: a few rows (name -> JSON value) to fill the form with.
    """

    version: str
    run_id: str
    loaded_at: str
    engine: str
    compiled: bool
    engine_note: str
    merges_requests: bool
    merging_note: str
    output: str
    lineage: Lineage
    metrics: dict[str, float | None]
    columns: list[ColumnState]
    example: list[dict[str, Any]]


class ShadowState(TypedDict):
    """The shadow version, which gets the same requests.

    Attributes:
        version: None if no version has the alias.
        rows: rows answered by both versions.
        disagreement: difference between the answers, as `disagreement_is` defines it; None before the first row.
        disagreement_is: such as `mean absolute difference`.
        dropped: rows skipped because the shadow was too slow.
    """

    alias: str
    version: str | None
    rows: int
    disagreement: float | None
    disagreement_is: str
    dropped: int


class CaptureState(TypedDict):
    """Captured and dropped rows since the start."""

    written: int
    dropped: int


class WorkerState(TypedDict):
    """A worker process; `requests` counts since its start."""

    pid: int
    version: str | None
    engine: str | None
    ready: bool
    requests: int


# `from` is a keyword of Python.
Swap = TypedDict("Swap", {"at": str, "from": str | None, "to": str, "seconds": float, "error": str | None})
"""A swap: its time (RFC 3339, UTC), the old version (None if none), the new one, the load time, and the error of a
failed swap."""


class Rates(TypedDict):
    """The rates of the last minutes per second, oldest first; all lists have the same length.

    Attributes:
        seconds: Unix time.
        errors: requests answered without a prediction.
        p50_ms, p99_ms: percentiles of the latency; None without requests.
        batch_rows: mean rows in a call of the model; None without calls.
    """

    seconds: list[int]
    requests: list[int]
    errors: list[int]
    p50_ms: list[float | None]
    p99_ms: list[float | None]
    rows: list[int]
    batch_rows: list[float | None]


class Status(TypedDict):
    """The document at `/status`.

    Attributes:
        alias: the watched alias; None if the server serves a fixed version or folder.
        ready: whether the server answers predictions.
        degraded: whether it is ready and has an `error`.
        registry: state at the last request; `none` if a folder is served.
        error: one sentence about what is wrong, such as a version that failed to load or a missing alias.
        trust: what the files of its versions may hold; `pickle` if pickles are loaded.
        swaps: newest first.
    """

    model: str
    alias: str | None
    ready: bool
    degraded: bool
    registry: Literal["reachable", "unreachable", "unknown", "none"]
    error: str | None
    trust: list[str]
    serving: ServingState | None
    shadow: ShadowState | None
    capture: CaptureState | None
    workers: list[WorkerState]
    swaps: list[Swap]
    rates: Rates
