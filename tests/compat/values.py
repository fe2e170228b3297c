"""Whether the values of a request have the types of the signature, judged without tidemill's code."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import numpy as np
from mlflow.types import TensorSpec
from mlflow.types.schema import AnyType, Array, Map, Object

from .models import Signature

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_RANGES = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?)?")


def form_of(body: Any) -> str:
    """Return in which of MLflow's forms a request is; `csv` for a text."""
    if not isinstance(body, dict):
        return "csv"
    return next((form for form in FORMS if form in body), "")


def cells(signature: Signature, body: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the spec and the value of each cell of a request for columns."""
    assert signature.inputs is not None
    specs = list(signature.inputs.inputs)
    names = [str(position) if spec.name is None else str(spec.name) for position, spec in enumerate(specs)]
    for row in _rows(body, names, specs):
        yield from ((specs[names.index(name)], value) for name, value in row.items() if name in names)


def row_count(signature: Signature, body: Any) -> int:
    """Return the number of rows of a request for columns."""
    assert signature.inputs is not None
    return len(_rows(body, [], list(signature.inputs.inputs)))


def _rows(body: Any, names: list[str], specs: list[Any]) -> list[dict[str, Any]]:
    """Return the rows of a request by the names of their columns."""
    form = form_of(body)
    if form == "csv":
        lines = [line for line in csv.reader(io.StringIO(body)) if line]
        return [dict(zip(lines[0], line, strict=False)) for line in lines[1:]]
    data = body.get(form)
    if form == "dataframe_split":
        columns = [str(name) for name in data.get("columns", names)]
        return [dict(zip(columns, row, strict=False)) for row in data["data"]]
    if isinstance(data, dict):
        return _rows_of_object(data, specs)
    if not isinstance(data, list):
        return [dict.fromkeys(names, data)]
    return [row if isinstance(row, dict) else dict(zip(names, row, strict=False)) for row in data]


def _rows_of_object(data: dict[str, Any], specs: list[Any]) -> list[dict[str, Any]]:
    """Return the rows of an object: one row, or a list of values for each column; a single value is repeated."""
    arrays = [spec for spec in specs if isinstance(spec.type, (Array, Object))]
    lists = [value for value in data.values() if isinstance(value, list)]
    is_row = arrays and all(
        data[str(spec.name)] is None or fits(spec.type, data[str(spec.name)])
        for spec in specs
        if str(spec.name) in data
    )
    if not lists or is_row:
        return [data] if data else []
    count = min(map(len, lists))
    return [
        {name: value[row] if isinstance(value, list) else value for name, value in data.items()} for row in range(count)
    ]


def fits(kind: Any, value: Any) -> bool:
    """Return whether a JSON value that is not null has an MLflow type; in nested values, null only where optional."""
    if isinstance(kind, AnyType):
        return True
    if isinstance(kind, Array):
        return isinstance(value, list) and all(fits(kind.dtype, item) for item in value)
    if isinstance(kind, Map):
        return isinstance(value, dict) and all(fits(kind.value_type, item) for item in value.values())
    if isinstance(kind, Object):
        return isinstance(value, dict) and _fits_object(kind, value)
    name = kind.name
    if name == "boolean":
        return isinstance(value, bool)
    if name in _RANGES:
        low, high = _RANGES[name]
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return whole and not isinstance(value, bool) and low <= value <= high
    if name in ("float", "double"):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if not isinstance(value, str):
        return False
    if name == "binary":
        return _is_base64(value)
    return name != "datetime" or _is_time(value)


def _fits_object(kind: Object, value: dict[str, Any]) -> bool:
    parts = {part.name: part for part in kind.properties}
    if value.keys() - parts.keys() or any(part.required and name not in value for name, part in parts.items()):
        return False
    return all(
        (item is None and not parts[name].required) or (item is not None and fits(parts[name].dtype, item))
        for name, item in value.items()
    )


def _is_base64(value: str) -> bool:
    try:
        base64.b64decode(value, validate=True)
    except ValueError:
        return False
    return True


def _is_time(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return _TIME.fullmatch(value) is not None


def fits_tensor(spec: TensorSpec, value: Any) -> bool:
    """Return whether nested lists are a tensor of a spec."""
    shape, items = _shape(value)
    sizes = spec.shape
    if (
        shape is None
        or len(shape) != len(sizes)
        or any(size not in (-1, n) for size, n in zip(sizes, shape, strict=True))
    ):
        return False
    kind = spec.type.kind
    if kind == "U":
        return all(isinstance(item, str) for item in items)
    if kind == "b":
        return all(isinstance(item, bool) for item in items)
    if any(isinstance(item, bool) or not isinstance(item, (int, float)) for item in items):
        return False
    if kind == "f":
        return True
    limits = np.iinfo(spec.type)
    return all(float(item).is_integer() and limits.min <= item <= limits.max for item in items if np.isfinite(item))


def _shape(value: Any) -> tuple[tuple[int, ...] | None, list[Any]]:
    """Return the shape of nested lists and their items; no shape if lists differ in length or depth."""
    if not isinstance(value, list):
        return (), [value]
    parts = [_shape(item) for item in value]
    shapes = {shape for shape, _ in parts}
    items = [item for _, found in parts for item in found]
    if len(shapes) > 1 or None in shapes:
        return None, items
    return (len(value), *(next(iter(shapes)) or () if shapes else ())), items


def has_zone(value: Any) -> bool:
    """Return whether a text is a time with a zone."""
    return isinstance(value, str) and re.search(r"\d(Z|[+-]\d\d:\d\d)$", value) is not None


def has_nanoseconds(value: Any) -> bool:
    """Return whether a text is a time finer than a microsecond."""
    return isinstance(value, str) and re.search(r":\d\d\.\d{7,}", value) is not None


def nested(kind: Any) -> bool:
    """Return whether a type is an array, object, map or any."""
    return isinstance(kind, (Array, Object, Map, AnyType))
