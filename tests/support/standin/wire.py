"""The engine's values in plain Python, with what was secret or unknown in them told by its path."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from google.protobuf import struct_pb2
from pulumi.runtime import rpc

UNKNOWN = "<unknown>"


@dataclass
class Plain:
    """Decoded properties.

    Attributes:
        value: the properties; an unknown one is the text `<unknown>`.
        secrets: paths of the values which were marked as secret.
        unknowns: paths of the values which are not known yet.
    """

    value: dict[str, Any] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    unknowns: list[str] = field(default_factory=list)


def decode(struct: struct_pb2.Struct) -> Plain:
    """Return the properties in `struct`."""
    plain = Plain()
    plain.value = {key: _walk(value, key, plain) for key, value in struct.fields.items()}
    return plain


def _walk(value: struct_pb2.Value, path: str, plain: Plain) -> Any:
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            if value.string_value == rpc.UNKNOWN:
                plain.unknowns.append(path)
                return UNKNOWN
            return value.string_value
        case "list_value":
            return [_walk(item, f"{path}[{index}]", plain) for index, item in enumerate(value.list_value.values)]
        case "struct_value":
            return _object(value.struct_value, path, plain)
        case _:
            return None


def _object(struct: struct_pb2.Struct, path: str, plain: Plain) -> Any:
    fields = struct.fields
    signature = fields[rpc._special_sig_key].string_value if rpc._special_sig_key in fields else ""
    if signature == rpc._special_secret_sig:
        plain.secrets.append(path)
        return _walk(fields["value"], path, plain)
    if signature == rpc._special_output_value_sig:
        if fields["secret"].bool_value:
            plain.secrets.append(path)
        if "value" not in fields:
            plain.unknowns.append(path)
            return UNKNOWN
        return _walk(fields["value"], path, plain)
    return {key: _walk(item, f"{path}.{key}", plain) for key, item in fields.items() if key != rpc._special_sig_key}


def encode(value: Any) -> struct_pb2.Value:
    """Return `value` for the engine; the text `<unknown>` becomes an unknown value."""
    if value is None:
        return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, int | float):
        return struct_pb2.Value(number_value=value)
    if isinstance(value, str):
        return struct_pb2.Value(string_value=rpc.UNKNOWN if value == UNKNOWN else value)
    if isinstance(value, list | tuple):
        return struct_pb2.Value(list_value=struct_pb2.ListValue(values=[encode(item) for item in value]))
    return struct_pb2.Value(struct_value=struct_of(value))


def struct_of(properties: dict[str, Any]) -> struct_pb2.Struct:
    """Return `properties` for the engine."""
    return struct_pb2.Struct(fields={key: encode(value) for key, value in properties.items()})
