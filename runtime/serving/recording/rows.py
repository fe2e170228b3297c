"""Converts answered requests to rows of a capture segment, many requests at once and by column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...capture import Privacy, capture_schema
from ..inference.batch import Batch, Outputs
from .answers import outputs_of

if TYPE_CHECKING:
    from ..versions.model import ServedModel

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(slots=True)
class CapturedRequest:
    """One answered request.

    Attributes:
        request_id: the server's id.
        client_request_id: the client's id, or None.
        received_at: Unix time of the request.
        model: the version that answered.
        role: its alias, or `shadow`.
        batch: the rows of the request.
        outputs: the predictions.
        key: name of the API key that sent it.
    """

    request_id: str
    client_request_id: str | None
    received_at: float
    model: ServedModel
    role: str
    batch: Batch
    outputs: Outputs
    key: str | None = None


def segment_schema(model: ServedModel, privacy: Privacy) -> pa.Schema:
    """Return the schema of the segments of `model`."""
    features = model.contract.arrow
    return capture_schema(privacy.type_of(features), model.output_type, privacy.omitted(features))


def to_record_batch(items: Sequence[CapturedRequest], schema: pa.Schema, privacy: Privacy) -> pa.RecordBatch:
    """Return the rows of `items` with `schema`.

    Args:
        items: requests to one model: either all with tuples of values, or a single one.
        schema: the model's `segment_schema`.
        privacy: hides and hashes features.

    Raises:
        ValueError, TypeError, pyarrow.ArrowException: the rows do not match the schema.
    """
    model = items[0].model
    counts = [item.batch.rows for item in items]
    total = sum(counts)
    batch = items[0].batch if len(items) == 1 else Batch.merged([item.batch for item in items])
    received = _microseconds([item.received_at for item in items])
    if total != len(items):
        received = np.repeat(received, counts)
    received_times = _times(received)
    features = privacy.apply(model.contract.to_arrow(batch))
    outputs, answers = outputs_of([item.outputs for item in items], counts, model.output_type)
    return pa.RecordBatch.from_arrays(
        [
            _texts([item.request_id for item in items], counts, total),
            _texts([item.client_request_id for item in items], counts, total),
            pa.array(_positions(counts, total)),
            received_times,
            _event_times(items, received)
            if any(item.batch.event_times is not None for item in items)
            else received_times,
            pa.repeat(pa.scalar(model.info.model, pa.string()), total),
            pa.repeat(pa.scalar(model.info.version, pa.string()), total),
            _texts([item.role for item in items], counts, total),
            _texts([item.key for item in items], counts, total),
            features,
            outputs,
            answers,
        ],
        schema=schema,
    )


def _texts(values: list[Any], counts: list[int], total: int) -> pa.Array:
    """Return each of `values` repeated as `counts` says."""
    if len(values) == 1:
        return pa.repeat(pa.scalar(values[0], pa.string()), total)
    if total != len(values):
        values = [value for value, count in zip(values, counts, strict=True) for _ in range(count)]
    return pa.array(values, pa.string())


def _positions(counts: list[int], total: int) -> NDArray[np.int32]:
    if total == len(counts):
        return np.zeros(total, np.int32)
    if len(counts) == 1:
        return np.arange(total, dtype=np.int32)
    starts = np.repeat(np.cumsum([0, *counts[:-1]]), counts)
    return (np.arange(total) - starts).astype(np.int32)


def _microseconds(seconds: list[float]) -> NDArray[np.int64]:
    return np.rint(np.array(seconds, np.float64) * 1e6).astype(np.int64)


def _times(microseconds: NDArray[np.int64]) -> pa.Array:
    return pa.array(microseconds.view("datetime64[us]"), pa.timestamp("us", tz="UTC"))


def _event_times(items: Sequence[CapturedRequest], received: NDArray[np.int64]) -> pa.Array:
    """Return the clients' event times; for a request without them, the time it was received."""
    times = received.copy()
    position = 0
    for item in items:
        if (event_times := item.batch.event_times) is not None:
            for index, moment in enumerate(event_times, position):
                times[index] = (moment - _EPOCH) // _MICROSECOND
        position += item.batch.rows
    return _times(times)
