"""Answers as JSON, Arrow and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from ..http.content_negotiation import ARROW, CSV, JSON
from ..inference.batch import Outputs
from ..protocols.base import Answered, Encoded

__all__ = ["ANSWERS", "as_json", "as_named_json", "output_array"]

_dump = msgspec.json.Encoder().encode


def as_json(answered: Answered) -> Encoded:
    """Say the outputs as MLflow does, and besides which version and which request it was."""
    outputs = answered.outputs
    return Encoded(
        _dump(_about({"predictions": outputs.tolist() if isinstance(outputs, np.ndarray) else outputs}, answered))
    )


def as_named_json(answered: Answered) -> Encoded:
    """Say each output as an object with its name."""
    outputs, name = answered.outputs, answered.model.output
    values = outputs.tolist() if isinstance(outputs, np.ndarray) else outputs
    return Encoded(_dump(_about({"predictions": [{name: value} for value in values]}, answered)))


def _about(document: dict[str, Any], answered: Answered) -> dict[str, Any]:
    info = answered.model.info
    document["model"] = info.model
    document["version"] = info.version
    document["request_id"] = answered.request_id
    if answered.client_request_id is not None:
        document["client_request_id"] = answered.client_request_id
    return document


def output_array(outputs: Outputs, kind: pa.DataType) -> pa.Array:
    """Return `outputs` as Arrow holds them: of `kind` where they fit, as JSON text where they have no one type."""
    if isinstance(outputs, np.ndarray):
        if outputs.ndim == 1:
            return pa.array(outputs, type=kind)
        rows, width = outputs.shape
        flat = pa.array(np.ascontiguousarray(outputs).reshape(-1))
        return pa.ListArray.from_arrays(pa.array(range(0, rows * width + 1, width), pa.int32()), flat).cast(kind)
    for wanted in (kind, None):
        try:
            return pa.array(outputs, type=wanted)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            continue
    return pa.array([None if value is None else json.dumps(value) for value in outputs], pa.string())


def _as_arrow(answered: Answered) -> Encoded:
    model = answered.model
    about: dict[str, str] = _about({}, answered)
    metadata = {f"tidemill.{key}": value for key, value in about.items()}
    metadata |= {key: value for key, value in model.info.tags.items() if key.startswith("tidemill.")}
    array = output_array(answered.outputs, model.output_type.field(0).type)
    schema = pa.schema([pa.field(model.output, array.type)], metadata=metadata)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays([array], schema=schema))
    return Encoded(sink.getvalue(), ARROW)


def _as_csv(answered: Answered) -> Encoded:
    outputs, name = answered.outputs, answered.model.output
    values: list[Any] = outputs.tolist() if isinstance(outputs, np.ndarray) else outputs
    wide = (
        bool(values) and all(isinstance(value, list) for value in values) and len({len(value) for value in values}) == 1
    )
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow([f"{name}_{at}" for at in range(len(values[0]))] if wide else [name])
    for value in values:
        writer.writerow([_cell(each) for each in value] if wide else [_cell(value)])
    return Encoded(sink.getvalue().encode(), f"{CSV}; charset=utf-8")


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value)


ANSWERS: dict[str, Callable[[Answered], Encoded]] = {JSON: as_json, ARROW: _as_arrow, CSV: _as_csv}
