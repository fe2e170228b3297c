"""What a model gave, in the one form in which answers are said: one value a row."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import numpy as np
import pyarrow as pa

from ..inference.batch import Outputs

__all__ = ["normalise", "output_type", "to_json"]

_DEPTH = 32


def normalise(given: Any, rows: int) -> Outputs:
    """Return what a model gave for `rows` rows as an array of floats, or as a list of values which JSON can hold.

    A data frame, or several named arrays, become an object a row.

    Raises:
        ValueError: it is not one value a row.
    """
    if isinstance(given, np.ndarray):
        if given.dtype.kind == "f" and given.ndim in (1, 2):
            values: Outputs = given.astype(np.float64, copy=False)
        else:
            values = to_json(given) if given.ndim else [to_json(given)]
    elif hasattr(given, "columns") and hasattr(given, "to_dict"):
        values = [{str(key): to_json(value) for key, value in row.items()} for row in given.to_dict(orient="records")]
    elif hasattr(given, "to_numpy"):
        values = _series(given)
    elif isinstance(given, Mapping):
        values = _by_name(cast("Mapping[Any, Any]", given), rows)
    elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
        values = [to_json(value) for value in cast("Sequence[Any]", given)]
    else:
        values = [to_json(given)]
    if len(values) != rows:
        raise ValueError(f"the model gave {len(values)} values for {rows} rows")
    return values


def _series(given: Any) -> Outputs:
    # A nullable type, where pd.NA is null, has no array of floats.
    array = given.to_numpy()
    if isinstance(array, np.ndarray) and array.dtype.kind == "f" and array.ndim == 1:
        return array.astype(np.float64, copy=False)
    return [to_json(value) for value in given.tolist()]


def _by_name(given: Mapping[Any, Any], rows: int) -> list[Any]:
    columns = {str(name): normalise(value, _length(value)) for name, value in given.items()}
    if not columns or any(len(values) != rows for values in columns.values()):
        if rows == 1:
            return [to_json(given)]
        raise ValueError(f"the model gave an object whose parts are not one value for each of {rows} rows")
    plain = [to_json(values) for values in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*plain, strict=True)]


def _length(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") and not isinstance(value, str | bytes | Mapping) else 1


def to_json(value: Any, depth: int = 0) -> Any:
    """Return `value` as JSON can hold it; a number which is not finite is null there.

    Raises:
        ValueError: it is nested too deeply.
    """
    if value is None or isinstance(value, str | bool | int):
        # Subclasses, such as numpy's strings and enumerations, become what they are derived from.
        return value if type(value) in (str, bool, int, type(None)) else _base(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if depth > _DEPTH:
        raise ValueError("the model gave a value which is nested too deeply")
    if isinstance(value, np.generic):
        return _scalar(value)
    if isinstance(value, np.ndarray):
        return [to_json(item, depth + 1) for item in value] if value.ndim else to_json(value.item(), depth + 1)
    if isinstance(value, Mapping):
        return {str(key): to_json(item, depth + 1) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(item, depth + 1) for item in cast("Sequence[Any]", value)]
    return _other(value, depth)


def _base(value: Any) -> Any:
    return next(kind(value) for kind in (bool, int, str) if isinstance(value, kind))


def _scalar(value: np.generic) -> Any:
    if isinstance(value, np.datetime64 | np.timedelta64):
        return None if np.isnat(value) else str(value)
    return to_json(value.item())


def _other(value: Any, depth: int) -> Any:
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, datetime | date):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return to_json(float(value))
    if isinstance(value, timedelta):
        return value.total_seconds()
    for way in ("model_dump", "to_dict", "tolist"):
        if callable(method := getattr(value, way, None)):
            return to_json(method(), depth + 1)
    return str(value)


def output_type(output: str, values: Outputs) -> pa.StructType:
    """Return the type of outputs such as `values` as a struct with one field, `output`.

    What is nested or differs from row to row is JSON text there.
    """
    if output == "score":
        return pa.struct([(output, pa.float64())])
    if output == "scores":
        return pa.struct([(output, pa.list_(pa.float64()))])
    if isinstance(values, np.ndarray):
        return pa.struct([(output, pa.float64() if values.ndim == 1 else pa.list_(pa.float64()))])
    try:
        kind = pa.array(values).type
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        kind = pa.string()
    return pa.struct([(output, kind if _is_flat(kind) else pa.string())])


def _is_flat(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind):
        return _is_plain(kind.value_type)
    if pa.types.is_struct(kind):
        return kind.num_fields > 0 and all(_is_plain(field.type) for field in kind)
    return _is_plain(kind)


def _is_plain(kind: pa.DataType) -> bool:
    return (
        pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_string(kind)
    )
