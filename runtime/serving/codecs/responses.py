"""Encodes model outputs as JSON, Arrow and CSV."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np
import pyarrow as pa

from ..engines.outputs import Answer, plain
from ..http.content_negotiation import ARROW, CSV, JSON
from ..inference.batch import Outputs
from ..inference.finite import is_finite, non_finite_rows
from ..protocols.base import EncodedResponse, Encoder, InferenceResult
from .answer_columns import Values, arrow_array, json_text, output_columns, without_non_finite

if TYPE_CHECKING:
    from ..versions.model import ServedModel

_dump = msgspec.json.Encoder().encode
_MAX_NOTES = 20


def encode_json(result: InferenceResult) -> EncodedResponse:
    """Return MLflow's JSON document, with the model version and the request ids added.

    NaN and infinities are written as MLflow writes them: `NaN`, `Infinity`, `-Infinity`.
    """
    outputs = result.outputs
    document = _with_ids({"predictions": _mlflow_value(outputs, result.model.output)}, result)
    body = _to_bytes(document)
    # The encoder writes null for NaN and infinities. Without a null, there is nothing to check.
    if b"null" in body and not is_finite(outputs):
        body = json.dumps(document).encode()
    return EncodedResponse(body)


def encode_named_json(result: InferenceResult) -> EncodedResponse:
    """Return a JSON document in which each output is an object with its name.

    An answer of the whole request is the value of `answer`. NaN and infinities are null, and `notes` say where.
    """
    outputs, name = result.outputs, result.model.output
    rows = outputs.to_rows() if isinstance(outputs, Answer) else _listed(outputs)
    document: dict[str, Any] = (
        {"answer": cast("Answer", outputs).to_mlflow()}
        if rows is None
        else {"predictions": [{name: value} for value in rows]}
    )
    body = _to_bytes(_with_ids(document, result))
    if b"null" in body and (found := non_finite_rows(outputs)):
        document["notes"] = _notes(found) if rows is not None else ["answer: not finite, returned as null"]
        body = _to_bytes(document)
    return EncodedResponse(body)


def _mlflow_value(outputs: Outputs, output: str) -> Any:
    if isinstance(outputs, Answer):
        return outputs.to_mlflow()
    values = _listed(outputs)
    # A compiled engine computes the probability of class 1 only.
    return [[1.0 - value, value] for value in values] if output == "score" else values


def _listed(outputs: Values) -> list[Any]:
    return outputs.tolist() if isinstance(outputs, np.ndarray) else outputs


def _notes(rows: list[int]) -> list[str]:
    notes = [f"row {row}: not finite, returned as null" for row in rows[:_MAX_NOTES]]
    return notes if len(rows) <= _MAX_NOTES else [*notes, f"{len(rows) - _MAX_NOTES} more rows are not finite"]


def _to_bytes(document: dict[str, Any]) -> bytes:
    try:
        return _dump(document)
    except (OverflowError, UnicodeEncodeError):
        # An integer of more than 64 bits, or half a surrogate pair.
        return json.dumps(without_non_finite(document)).encode()


def _with_ids(document: dict[str, Any], result: InferenceResult) -> dict[str, Any]:
    info = result.model.info
    document["model"] = info.model
    document["version"] = info.version
    document["request_id"] = result.request_id
    if result.client_request_id is not None:
        document["client_request_id"] = result.client_request_id
    return document


def _encode_arrow(result: InferenceResult) -> EncodedResponse:
    model = result.model
    metadata = {f"tidemill.{key}": value for key, value in _with_ids({}, result).items()}
    metadata |= {key: value for key, value in model.info.tags.items() if key.startswith("tidemill.")}
    table = _table(result)
    kinds = _column_types(model, result.outputs)
    arrays = [arrow_array(values, kinds.get(name)) for name, values in table]
    fields = [pa.field(name, array.type) for (name, _), array in zip(table, arrays, strict=True)]
    schema = pa.schema(fields, metadata=metadata)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return EncodedResponse(sink.getvalue(), ARROW)


def _table(result: InferenceResult) -> list[tuple[str, Values]]:
    """Return the columns of an answer; one of the whole request whose parts differ in length is a single JSON text."""
    outputs = result.outputs
    columns = output_columns(outputs, result.model.output)
    if len({len(values) for _, values in columns}) > 1:
        assert isinstance(outputs, Answer)  # noqa: S101 - other outputs have one column
        return [(result.model.output, [json_text(outputs.to_mlflow())])]
    return columns


def _column_types(model: ServedModel, outputs: Outputs) -> dict[str, pa.DataType]:
    """Return the types of the columns that preparation found; arrays of an answer keep their own."""
    kind = model.answer_type
    if kind is None:
        return {}
    if not isinstance(outputs, Answer):
        return {model.output: kind}
    if outputs.form not in ("frame", "mapping") or not pa.types.is_struct(kind):
        return {}
    given = dict(zip(outputs.names, outputs.parts, strict=True))
    return {each.name: each.type for each in kind if isinstance(given.get(each.name), list)}


def _encode_csv(result: InferenceResult) -> EncodedResponse:
    header: list[str] = []
    columns: list[list[Any]] = []
    for name, given in _table(result):
        values = cast("list[Any]", plain(given))
        wide = (
            bool(values)
            and all(isinstance(value, list) for value in values)
            and len({len(value) for value in values}) == 1
        )
        header += [f"{name}_{at}" for at in range(len(values[0]))] if wide else [name]
        columns += [list(each) for each in zip(*values, strict=True)] if wide else [values]
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in zip(*columns, strict=True))
    return EncodedResponse(sink.getvalue().encode(), f"{CSV}; charset=utf-8")


def _cell(value: Any) -> str:
    """Return a value as pandas writes it: an empty cell for null and NaN, `inf` for an infinity."""
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, float) and not np.isfinite(value):
        return "inf" if value > 0 else "-inf"
    return json_text(value)


ENCODERS: dict[str, Encoder] = {JSON: encode_json, ARROW: _encode_arrow, CSV: _encode_csv}
