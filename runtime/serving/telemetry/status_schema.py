"""The document at `/status`, which the page is filled from: plain JSON, and one worker's answer speaks for all."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

__all__ = [
    "CaptureState",
    "ColumnState",
    "Lineage",
    "Rates",
    "ServingState",
    "ShadowState",
    "Status",
    "Swap",
    "WorkerState",
]


class Lineage(TypedDict):
    """Where a version comes from; None is unknown."""

    git_commit: str | None
    lake_repository: str | None
    lake_commit: str | None


class ColumnState(TypedDict):
    """One input of the version which serves.

    Attributes:
        kind: its type in the signature: `boolean`, `integer`, `long`, `float`, `double`, `string`, `binary`,
            `datetime`, `tensor` or `json`.
        required: it must be there and not be null.
    """

    name: str
    kind: str
    required: bool


class ServingState(TypedDict):
    """The version which serves.

    Attributes:
        loaded_at: RFC 3339, UTC.
        engine: the name of its engine, such as `tl2cgen` or `sklearn`.
        compiled: whether that is another form of the model than the one which was logged.
        engine_note: why it is not compiled, or how far the compiled one is from the model itself.
        output: `score`, `scores` or `prediction`.
        metrics: those of its run when it was promoted; None is not a number, or infinite.
        columns: what it takes.
        example: a few rows, name -> JSON value, which the form is filled with.
    """

    version: str
    run_id: str
    loaded_at: str
    engine: str
    compiled: bool
    engine_note: str
    output: str
    lineage: Lineage
    metrics: dict[str, float | None]
    columns: list[ColumnState]
    example: list[dict[str, Any]]


class ShadowState(TypedDict):
    """The version which is asked the same besides.

    Attributes:
        version: None while there is none.
        rows: how many both have answered.
        disagreement: how far apart the answers are, in words of `disagreement_is`; None before the first row.
        disagreement_is: what that number is, such as `mean absolute difference`.
        dropped: rows which were not asked for want of time.
    """

    alias: str
    version: str | None
    rows: int
    disagreement: float | None
    disagreement_is: str
    dropped: int


class CaptureState(TypedDict):
    """Rows since the start."""

    written: int
    dropped: int


class WorkerState(TypedDict):
    """One process which answers.

    Attributes:
        version: what it serves; None is nothing.
        requests: answered since its start.
    """

    pid: int
    version: str | None
    engine: str | None
    ready: bool
    requests: int


# `from` is a keyword of Python.
Swap = TypedDict(
    "Swap",
    {
        "at": str,
        "from": str | None,
        "to": str,
        "seconds": float,
        "error": str | None,
    },
)
"""A version which was taken, or could not be: when (RFC 3339, UTC), instead of which (None: of nothing), how long it
took to load, and why it failed (None: it serves)."""


class Rates(TypedDict):
    """The last minutes, second by second, oldest first; all lists are equally long.

    Attributes:
        seconds: Unix time of each, whole.
        requests: answered in that second, errors among them.
        errors: of these, not answered with a prediction.
        p50_ms: half of the requests took no longer; None where there were none.
        p99_ms: 99 % of them took no longer.
        rows: rows of these requests.
        batch_rows: mean number of rows in a call of the model; None where there was none.
    """

    seconds: list[int]
    requests: list[int]
    errors: list[int]
    p50_ms: list[float | None]
    p99_ms: list[float | None]
    rows: list[int]
    batch_rows: list[float | None]


class Status(TypedDict):
    """What the page shows.

    Attributes:
        alias: what the server follows; None where it serves one version or folder for good.
        ready: whether predictions are answered.
        registry: how it was found last time; `none` where a folder is served.
        error: what is wrong, one sentence: the version which failed and why, an alias which is not there.
        swaps: the newest first.
    """

    model: str
    alias: str | None
    ready: bool
    registry: Literal["reachable", "unreachable", "unknown", "none"]
    error: str | None
    serving: ServingState | None
    shadow: ShadowState | None
    capture: CaptureState | None
    workers: list[WorkerState]
    swaps: list[Swap]
    rates: Rates
