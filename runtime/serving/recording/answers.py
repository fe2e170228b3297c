"""Converts outputs of every form to the columns `outputs` and `answer` of a capture segment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa

from ..codecs.answer_columns import json_text, text_with_nulls
from ..engines.outputs import Answer
from ..inference.batch import Outputs


def outputs_of(
    outputs: Sequence[Outputs], counts: Sequence[int], output_type: pa.StructType
) -> tuple[pa.StructArray, pa.Array]:
    """Return the columns `outputs` and `answer` for the rows of several requests to one model.

    An answer of a whole request is JSON text in the first row of the request. So are outputs that do not fit
    `output_type`, because the model returned another type than for its sample: nothing is lost.

    Args:
        outputs: of each request.
        counts: number of rows of each request.
        output_type: a struct with one field.
    """
    field = output_type.field(0)
    total = sum(counts)
    if all(isinstance(each, np.ndarray) for each in outputs):
        array = _array(cast("Sequence[np.ndarray[Any, Any]]", outputs), field.type)
        if array is not None:
            return pa.StructArray.from_arrays([array], fields=[field]), pa.nulls(total, pa.string())
    rows = [_rows(each) for each in outputs]
    values = _typed([value for each in rows for value in each or ()], field.type) if None not in rows else None
    if values is not None:
        return pa.StructArray.from_arrays([values], fields=[field]), pa.nulls(total, pa.string())
    arrays: list[pa.Array] = []
    answers: list[str | None] = []
    present: list[bool] = []
    for given, own, count in zip(outputs, rows, counts, strict=True):
        array = _typed(own, field.type) if own is not None else None
        arrays.append(pa.nulls(count, field.type) if array is None else array)
        present += [array is not None] * count
        answers += [json_text(_value(given)) if array is None else None, *[None] * (count - 1)]
    column = pa.concat_arrays(arrays)
    mask = pa.array([not each for each in present])
    return pa.StructArray.from_arrays([column], fields=[field], mask=mask), pa.array(answers, pa.string())


def _array(outputs: Sequence[np.ndarray[Any, Any]], kind: pa.DataType) -> pa.Array | None:
    if len({each.shape[1:] for each in outputs}) > 1:
        return None
    values = np.concatenate(outputs) if len(outputs) > 1 else outputs[0]
    if values.ndim == 1:
        array = pa.array(values)
    else:
        offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
        array = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(values).reshape(-1)))
    if array.type == kind:
        return array
    try:
        return array.cast(kind)
    except pa.ArrowException:
        return None


def _rows(outputs: Outputs) -> list[Any] | None:
    """Return one value for each row, or None for an answer of the whole request."""
    if isinstance(outputs, Answer):
        return outputs.to_rows()
    return outputs.tolist() if isinstance(outputs, np.ndarray) else outputs


def _value(outputs: Outputs) -> Any:
    return outputs.to_mlflow() if isinstance(outputs, Answer) else _rows(outputs)


def _typed(values: list[Any], kind: pa.DataType) -> pa.Array | None:
    """Return values as an array of `kind`, or None if they do not fit."""
    if pa.types.is_string(kind):
        # Text is stored as it is; the values of a model without a common type are JSON texts.
        plain = text_with_nulls(values)
        return pa.array([each if each is None or type(each) is str else json_text(each) for each in plain], kind)
    if pa.types.is_struct(kind):
        known = {field.name for field in kind}
        if not all(each is None or (isinstance(each, dict) and each.keys() <= known) for each in values):
            return None
        nulls = [field.name for field in kind if pa.types.is_string(field.type)]
        values = [_without_nan(each, nulls) for each in values]
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return None


def _without_nan(row: dict[str, Any] | None, names: list[str]) -> dict[str, Any] | None:
    """Return an object with null in the place of missing text, which pandas calls NaN."""
    if row is None or not any(row.get(name) != row.get(name) for name in names):
        return row
    return {key: None if key in names and value != value else value for key, value in row.items()}
