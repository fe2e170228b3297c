"""Builds the JSON Schemas (2020-12) of a contract: they allow exactly the values that the server accepts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from ..settings import LimitSettings
from .columns import BITS, LARGEST, Column
from .model_contract import Contract
from .params import Param

# A valid date: months of 31 days, of 30 days, February, and 29 February in leap years.
_YEAR = r"(?:1679|16[89][0-9]|1[789][0-9]{2}|2[01][0-9]{2}|22[0-5][0-9]|2260)"
_LEAP = (
    r"(?:16(?:8[048]|9[26])|(?:17|18|19|21)(?:0[48]|[2468][048]|[13579][26])|20(?:[02468][048]|[13579][26])"
    r"|22(?:0[48]|[24][048]|[135][26]|60))"
)
_DAY = (
    rf"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    rf"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP}-02-29)"
)
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"^{_DAY}[Tt ]{_CLOCK}:[0-5][0-9](?:\.[0-9]{{1,9}})?(?:[Zz]|[+-]{_CLOCK})$"
_MOMENT = rf"^{_DAY}(?:[Tt ]{_CLOCK}(?::[0-5][0-9](?:\.[0-9]{{1,6}}0{{0,3}})?)?(?:[Zz]|[+-]{_CLOCK})?)?$"
_BASE64 = r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"


def object_schema(
    properties: Mapping[str, Any], *, optional: Collection[str] = (), closed: bool = False
) -> dict[str, Any]:
    """Return the schema of an object; if it is `closed`, further properties are not allowed."""
    required = [name for name in properties if name not in optional]
    schema = {"type": "object", "properties": dict(properties), "required": required}
    return {**schema, "additionalProperties": False} if closed else schema


def array_schema(items: Any, **bounds: int) -> dict[str, Any]:
    """Return the schema of an array, with bounds such as `minItems`."""
    return {"type": "array", "items": items, **bounds}


def time_schema() -> dict[str, Any]:
    """Return the schema of a time."""
    return {"type": "string", "pattern": _TIME, "description": "An RFC 3339 time with an offset, from 1679 to 2260."}


def moment_schema() -> dict[str, Any]:
    """Return the schema of a time that a model gets."""
    text = "A time from 1679 to 2260, in UTC if it has no zone. The clock can be left out. At most microseconds."
    return {"type": "string", "pattern": _MOMENT, "description": text}


def column_schema(column: Column, limits: LimitSettings) -> dict[str, Any]:
    """Return the schema of one value of `column`."""
    if column.kind == "tensor":
        schema = _tensor(column, limits)
    elif column.kind == "json":
        schema = _json(column.spec or {"type": "any"}, limits)
    else:
        schema = _scalar(column.kind, limits)
    return schema if column.required else nullable(schema)


def params_schema(contract: Contract, limits: LimitSettings) -> dict[str, Any]:
    """Return the schema of the inference parameters, as an object or null."""
    params = contract.params or ()
    properties = {param.name: {**_param(param, limits), "default": param.default} for param in params}
    schema = object_schema(properties, optional=list(properties), closed=True)
    return {**schema, "type": ["object", "null"], "description": "The inference parameters of the signature."}


def _param(param: Param, limits: LimitSettings) -> dict[str, Any]:
    schema = _json(param.spec, limits) if param.spec is not None else nullable(_scalar(param.kind, limits))
    return array_schema(schema) if param.is_list else schema


def row_schema(contract: Contract, limits: LimitSettings, *, closed: bool = True) -> dict[str, Any]:
    """Return the schema of a row as an object; if it is `closed`, further columns are not allowed."""
    properties = {column.name: column_schema(column, limits) for column in contract.columns}
    optional = [column.name for column in contract.columns if not column.required]
    return object_schema(properties, optional=optional, closed=closed)


def list_row_schema(contract: Contract, limits: LimitSettings) -> dict[str, Any]:
    """Return the schema of a row as a list of values in the order of the columns."""
    columns, width = contract.columns, len(contract.columns)
    schema = array_schema(False, minItems=width, maxItems=width)
    return {**schema, "prefixItems": [column_schema(column, limits) for column in columns]}


def any_value(limits: LimitSettings) -> dict[str, Any]:
    """Return the schema of any JSON value, for `#/components/schemas/AnyValue`, which it refers to."""
    inner = {"$ref": "#/components/schemas/AnyValue"}
    return {
        "anyOf": [
            {"type": "null"},
            {"type": "boolean"},
            _scalar("double", limits),
            _scalar("string", limits),
            array_schema(inner),
            {"type": "object", "additionalProperties": inner},
        ]
    }


def output_schema(kind: pa.DataType) -> dict[str, Any]:
    """Return the schema of one output of the Arrow type `kind`."""
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return array_schema(output_schema(kind.value_type))
    if types.is_boolean(kind):
        return {"type": "boolean"}
    if types.is_integer(kind):
        return {"type": "integer"}
    if types.is_floating(kind):
        return {"type": "number", "format": "double"}
    if types.is_struct(kind):
        return object_schema({field.name: nullable(output_schema(field.type)) for field in kind})
    return {"type": "string"} if types.is_string(kind) else {}


def nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a value that may be null."""
    if not schema:
        return schema
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def _scalar(kind: str, limits: LimitSettings) -> dict[str, Any]:
    if kind in BITS:
        return {
            "type": "integer",
            "format": "int32" if kind == "integer" else "int64",
            "minimum": -(1 << BITS[kind]),
            "maximum": (1 << BITS[kind]) - 1,
        }
    if kind in LARGEST:
        return {"type": "number", "format": kind, "minimum": -LARGEST[kind], "maximum": LARGEST[kind]}
    if kind == "boolean":
        return {"type": "boolean"}
    if kind == "datetime":
        return moment_schema()
    if kind == "binary":
        return {"type": "string", "contentEncoding": "base64", "pattern": _BASE64, "maxLength": limits.text}
    return {"type": "string", "maxLength": limits.text}


def _json(spec: Mapping[str, Any], limits: LimitSettings) -> dict[str, Any]:
    kind = spec["type"]
    if kind == "any":
        return {"$ref": "#/components/schemas/AnyValue"}
    if kind == "array":
        return array_schema(_optional_json(spec["items"], limits))
    if kind == "map":
        return {"type": "object", "additionalProperties": _optional_json(spec["values"], limits)}
    if kind == "object":
        properties: Mapping[str, Mapping[str, Any]] = spec["properties"]
        optional = [name for name, part in properties.items() if not part.get("required", True)]
        parts = {name: _optional_json(part, limits) for name, part in properties.items()}
        return object_schema(parts, optional=optional, closed=True)
    return _scalar(kind, limits)


def _optional_json(spec: Mapping[str, Any], limits: LimitSettings) -> dict[str, Any]:
    schema = _json(spec, limits)
    return schema if spec.get("required", True) or spec["type"] == "any" else nullable(schema)


def _tensor(column: Column, limits: LimitSettings) -> dict[str, Any]:
    if column.dtype in ("str", "object"):
        schema = _scalar("string", limits)
    elif column.dtype == "bool":
        schema = _scalar("boolean", limits)
    else:
        dtype = np.dtype(column.dtype)
        kind, bounds = ("number", np.finfo(dtype)) if dtype.kind == "f" else ("integer", np.iinfo(dtype))
        plain = float if dtype.kind == "f" else int
        schema = {"type": kind, "minimum": plain(bounds.min), "maximum": plain(bounds.max)}
    for size in reversed(column.shape[1:]):
        schema = array_schema(schema, minItems=max(size, 1))
        if size >= 0:
            schema["maxItems"] = size
    return schema
