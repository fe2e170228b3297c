"""Outputs as named columns, the form of Arrow, CSV, tensors and files of scores."""

from __future__ import annotations

import json
from typing import Any, TypeAlias, cast

import numpy as np
import pyarrow as pa

from ..engines.outputs import Answer, plain
from ..inference.batch import Outputs

Values: TypeAlias = "np.ndarray[Any, Any] | list[Any]"
"""A column: an array, or a list of JSON values."""


def output_columns(outputs: Outputs, output: str) -> list[tuple[str, Values]]:
    """Return `outputs` as columns with names; those of an answer of the whole request can have any lengths.

    A data frame has its own columns, and a mapping its keys. A series has its name. The targets of a classifier are
    `scores_0`, `scores_1`. Everything else is one column.

    Args:
        outputs: of any form.
        output: name of the model's output, for columns without a name of their own.
    """
    if not isinstance(outputs, Answer):
        return [(output, outputs)]
    form, parts = outputs.form, outputs.parts
    if form == "targets":
        return [(f"scores_{at}", part) for at, part in enumerate(parts)]
    if form == "score":
        return [(output, parts[1])]
    if form == "series":
        return [(outputs.names[0] if outputs.names else output, parts[0])]
    if form in ("frame", "mapping"):
        return list(zip(outputs.names, parts, strict=True))
    value = parts[0]
    if isinstance(value, np.ndarray):
        return [(output, value)]
    if outputs.rows is None:
        if isinstance(value, list):
            return [(output, cast("list[Any]", value))]
        if isinstance(value, dict) and value and all(isinstance(each, list) for each in value.values()):
            return list(cast("dict[str, list[Any]]", value).items())
    return [(output, [value])]


def arrow_array(values: Values, kind: pa.DataType | None = None) -> pa.Array:
    """Return a column as an Arrow array: of `kind` if the values fit, as JSON text if they have no common type.

    Numbers in a column of texts, as of a model without a common type, are JSON texts too: NaN is null.
    """
    if isinstance(values, np.ndarray):
        if values.ndim > 1:
            return _nested(values, kind)
        for candidate in () if kind is not None and pa.types.is_string(kind) else (kind, None):
            try:
                return pa.array(values, type=candidate)
            except (pa.ArrowException, TypeError, ValueError):
                continue
        values = cast("list[Any]", plain(values))
    values = text_with_nulls(values)
    found = None if kind is None else typed_array(values, kind)
    if found is not None:
        return found
    for candidate in (None, pa.uint64()):
        try:
            array = pa.array(values, type=candidate)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            continue
        if kind is not None and pa.types.is_string(kind) and _makes_text(array.type, kind):
            return pa.array(json_texts([None if value != value else value for value in values]), kind)
        return array
    return pa.array(json_texts(values), pa.string())


def typed_array(values: list[Any], kind: pa.DataType) -> pa.Array | None:
    """Return JSON values as an array of `kind`, or None if they do not fit without loss."""
    try:
        # Of the given type, Arrow would cut the fraction of a number for an integer, and take booleans as numbers.
        array = pa.array(values)
        if pa.types.is_boolean(array.type) and not pa.types.is_boolean(kind):
            return None
        if _makes_text(array.type, kind):
            return None
        return array if array.type == kind else array.cast(kind)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return None


def _makes_text(given: pa.DataType, kind: pa.DataType) -> bool:
    """Return whether a cast from `given` to `kind` makes texts of numbers."""
    if pa.types.is_struct(given) and pa.types.is_struct(kind):
        known = {each.name: each.type for each in kind}
        return any(each.name in known and _makes_text(each.type, known[each.name]) for each in given)
    if pa.types.is_list(given) and pa.types.is_list(kind):
        return _makes_text(given.value_type, kind.value_type)
    return pa.types.is_string(kind) and (
        pa.types.is_integer(given) or pa.types.is_floating(given) or pa.types.is_boolean(given)
    )


def _nested(array: np.ndarray[Any, Any], kind: pa.DataType | None) -> pa.Array:
    """Return an array of more than one dimension as lists."""
    if array.dtype.kind == "M":
        return pa.array(cast("list[Any]", plain(array)))
    found: Any = pa.array(np.ascontiguousarray(array).reshape(-1))
    for at in range(array.ndim - 1, 0, -1):
        width = array.shape[at]
        count = int(np.prod(array.shape[:at]))
        offsets = np.arange(count + 1, dtype=np.int32) * width
        found = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), found)
    if kind is not None and kind != found.type:
        try:
            return found.cast(kind)
        except pa.ArrowException:
            return found
    return found


def text_with_nulls(values: list[Any]) -> list[Any]:
    """Return texts with null in the place of NaN, which is missing text of pandas; other values are unchanged."""
    if any(type(value) is str for value in values) and any(value != value for value in values):
        return [None if value != value else value for value in values]
    return values


def json_texts(values: list[Any]) -> list[str | None]:
    """Return values as JSON texts, which every reader of JSON accepts; null stays null."""
    return [None if value is None else json_text(value) for value in values]


def json_text(value: Any) -> str:
    """Return a JSON value as text; NaN and infinities become null."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(without_non_finite(value))


def without_non_finite(value: Any) -> Any:
    """Return a JSON value with null in the place of NaN and infinities."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, list):
        return [without_non_finite(each) for each in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {key: without_non_finite(each) for key, each in cast("dict[str, Any]", value).items()}
    return value
