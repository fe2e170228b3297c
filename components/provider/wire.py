"""Converts property values between the engine's gRPC messages and Python (sdk/proto/pulumi/provider.proto of Pulumi).

Only the generated messages of Pulumi's Python package are loaded, not its SDK: importing the SDK would take most of
the time of an `up` without changes.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final, cast

from google.protobuf import struct_pb2

from .base import UNKNOWN, Properties

# The engine's marks: sdk/go/common/resource/{sig,plugin}, also in pulumi/runtime/rpc.py.
_SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
_SECRET: Final = "1b47061264138c4ac30d75fd1eb44270"
_OUTPUT: Final = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
_UNKNOWN: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

_ALIAS = f"{__package__}._proto"


def messages(name: str) -> Any:
    """Return Pulumi's generated module `name`, such as `provider_pb2`, without importing `pulumi` itself."""
    if _ALIAS not in sys.modules:
        found = importlib.util.find_spec("pulumi")
        if found is None or not found.submodule_search_locations:
            raise ImportError('the provider needs Pulumi: pip install "tidemill[platform]"')
        package = types.ModuleType(_ALIAS)
        package.__path__ = [str(Path(found.submodule_search_locations[0]) / "runtime" / "proto")]
        sys.modules[_ALIAS] = package
    return importlib.import_module(f"{_ALIAS}.{name}")


def from_wire(struct: struct_pb2.Struct) -> tuple[Properties, set[str]]:
    """Return the properties in `struct`, and the names of those that contain a secret."""
    properties: Properties = {}
    secrets: set[str] = set()
    for key, value in struct.fields.items():
        properties[key], secret = _plain(value)
        if secret:
            secrets.add(key)
    return properties, secrets


def to_wire(properties: Properties, secrets: Collection[str] = ()) -> struct_pb2.Struct:
    """Return `properties` for the engine, with those named in `secrets` marked as secret."""
    fields: dict[str, struct_pb2.Value] = {}
    for key, value in properties.items():
        if value is None:
            continue
        wired = _value(value)
        if key in secrets:
            mark = {_SIGNATURE: struct_pb2.Value(string_value=_SECRET), "value": wired}
            wired = struct_pb2.Value(struct_value=struct_pb2.Struct(fields=mark))
        fields[key] = wired
    return struct_pb2.Struct(fields=fields)


def _plain(value: struct_pb2.Value) -> tuple[Any, bool]:
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value, False
        case "number_value":
            number = value.number_value
            return (int(number) if number.is_integer() else number), False
        case "string_value":
            return (UNKNOWN if value.string_value == _UNKNOWN else value.string_value), False
        case "list_value":
            items = [_plain(item) for item in value.list_value.values]
            return [item for item, _ in items], any(secret for _, secret in items)
        case "struct_value":
            fields = value.struct_value.fields
            signature = fields[_SIGNATURE].string_value if _SIGNATURE in fields else ""
            if signature in (_SECRET, _OUTPUT):
                inner = _plain(fields["value"])[0] if "value" in fields else UNKNOWN
                return inner, signature == _SECRET or fields["secret"].bool_value
            if signature:
                raise ValueError("assets, archives and resources cannot be inputs of this provider")
            pairs = {key: _plain(item) for key, item in fields.items()}
            return {key: item for key, (item, _) in pairs.items()}, any(secret for _, secret in pairs.values())
        case _:
            return None, False


def _value(value: Any) -> struct_pb2.Value:
    if value is None:
        return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    if value is UNKNOWN:
        return struct_pb2.Value(string_value=_UNKNOWN)
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, int | float):
        return struct_pb2.Value(number_value=value)
    if isinstance(value, str):
        return struct_pb2.Value(string_value=value)
    if isinstance(value, list | tuple):
        items = [_value(item) for item in cast("list[Any]", value)]
        return struct_pb2.Value(list_value=struct_pb2.ListValue(values=items))
    if isinstance(value, dict):
        pairs = {key: _value(item) for key, item in cast("Properties", value).items()}
        return struct_pb2.Value(struct_value=struct_pb2.Struct(fields=pairs))
    raise TypeError(f"cannot be sent to the engine: {type(value).__name__}")
