"""Encodes model outputs as JSON, Arrow and CSV."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from ..http.content_negotiation import ARROW, CSV, JSON
from ..inference.batch import Outputs
from ..protocols.base import EncodedResponse, Encoder, InferenceResult

_dump = msgspec.json.Encoder().encode


def encode_json(result: InferenceResult) -> EncodedResponse:
    """Return MLflow's JSON document, with the model version and the request ids added."""
    outputs = result.outputs
    return EncodedResponse(
        _dump(_with_ids({"predictions": outputs.tolist() if isinstance(outputs, np.ndarray) else outputs}, result))
    )


def encode_named_json(result: InferenceResult) -> EncodedResponse:
    """Return a JSON document in which each output is an object with its name."""
    outputs, name = result.outputs, result.model.output
    values = outputs.tolist() if isinstance(outputs, np.ndarray) else outputs
    return EncodedResponse(_dump(_with_ids({"predictions": [{name: value} for value in values]}, result)))


def _with_ids(document: dict[str, Any], result: InferenceResult) -> dict[str, Any]:
    info = result.model.info
    document["model"] = info.model
    document["version"] = info.version
    document["request_id"] = result.request_id
    if result.client_request_id is not None:
        document["client_request_id"] = result.client_request_id
    return document


def output_array(outputs: Outputs, kind: pa.DataType) -> pa.Array:
    """Return `outputs` as an Arrow array: of `kind` if they fit, as JSON text if they have no common type.

    Numbers for the kind text are JSON text too: a model whose answers were unknown when it was loaded has that kind.
    """
    text = pa.types.is_string(kind)
    if isinstance(outputs, np.ndarray) and text:
        outputs = outputs.tolist()
    if isinstance(outputs, np.ndarray):
        if outputs.ndim == 1:
            return pa.array(outputs, type=kind)
        rows, width = outputs.shape
        flat = pa.array(np.ascontiguousarray(outputs).reshape(-1))
        return pa.ListArray.from_arrays(pa.array(range(0, rows * width + 1, width), pa.int32()), flat).cast(kind)
    for candidate in (kind,) if text else (kind, None):
        try:
            return pa.array(outputs, type=candidate)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            continue
    return pa.array([None if value is None else json.dumps(value) for value in outputs], pa.string())


def _encode_arrow(result: InferenceResult) -> EncodedResponse:
    model = result.model
    metadata = {f"tidemill.{key}": value for key, value in _with_ids({}, result).items()}
    metadata |= {key: value for key, value in model.info.tags.items() if key.startswith("tidemill.")}
    array = output_array(result.outputs, model.output_type.field(0).type)
    schema = pa.schema([pa.field(model.output, array.type)], metadata=metadata)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays([array], schema=schema))
    return EncodedResponse(sink.getvalue(), ARROW)


def _encode_csv(result: InferenceResult) -> EncodedResponse:
    outputs, name = result.outputs, result.model.output
    values: list[Any] = outputs.tolist() if isinstance(outputs, np.ndarray) else outputs
    wide = (
        bool(values) and all(isinstance(value, list) for value in values) and len({len(value) for value in values}) == 1
    )
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow([f"{name}_{at}" for at in range(len(values[0]))] if wide else [name])
    for value in values:
        writer.writerow([_cell(each) for each in value] if wide else [_cell(value)])
    return EncodedResponse(sink.getvalue().encode(), f"{CSV}; charset=utf-8")


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value)


ENCODERS: dict[str, Encoder] = {JSON: encode_json, ARROW: _encode_arrow, CSV: _encode_csv}
