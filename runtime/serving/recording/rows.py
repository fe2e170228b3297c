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
            _outputs([item.outputs for item in items], model.output_type),
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


def _outputs(outputs: list[Outputs], output_type: pa.StructType) -> pa.StructArray:
    field = output_type.field(0)
    first = outputs[0]
    if isinstance(first, np.ndarray):
        values = np.concatenate(outputs) if len(outputs) > 1 else first
        if values.ndim == 1:
            array = pa.array(values)
        else:
            width = values.shape[1]
            offsets = np.arange(len(values) + 1, dtype=np.int32) * width
            array = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(values).reshape(-1)))
        if array.type != field.type:
            array = array.cast(field.type)
    else:
        array = pa.array([value for each in outputs for value in each], field.type)
    return pa.StructArray.from_arrays([array], fields=[field])
