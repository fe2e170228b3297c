"""The columns of a capture, and the protection of personal data in them.

A column can be left out, or stored as a keyed hash. The field of a hashed column, a string column, says that it is
hashed. The schema of a segment names both kinds, so that a later reader knows which values are missing.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

KEY = "key"
"""The column with the name of the API key that sent a row; segments of earlier releases lack it."""

ANSWER = "answer"
"""The column with answers of whole requests, as JSON text; segments of schema 1 lack it."""

TIME = pa.timestamp("us", tz="UTC")
SCHEMA = 2
"""The version of the schemas of captured rows and labels. Segments without one in their metadata have version 1."""

_SCHEMA = b"tidemill.schema"
_LEFT_OUT, _HASHED = b"tidemill.left_out", b"tidemill.hashed"
_HASH = "tidemill.hash"
_HASH_NAME = "hmac-sha256-128"
_HASH_CHARACTERS = 32
# Parquet does not support a struct without fields.
_NO_FEATURE = pa.field("_left_out", pa.null())


@dataclass(frozen=True)
class Omitted:
    """Features whose values are not in the capture.

    Attributes:
        left_out: features that are not stored.
        hashed: features that are stored as a hash.
    """

    left_out: frozenset[str] = frozenset()
    hashed: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """The names of all of them."""
        return self.left_out | self.hashed


NOTHING = Omitted()


def capture_schema(features: pa.StructType, outputs: pa.StructType, omitted: Omitted = NOTHING) -> pa.Schema:
    """Return the schema of a capture segment for a model with these `features` and `outputs`.

    `event_time` is the client's event time, or `received_at` if the client sent none. `role` is the alias of the
    version that answered, such as `champion`, or `shadow` if the answer was only compared. `key` is the name of the API
    key that sent the request, or null if it is unknown. `outputs` has the field
    `score` (the probability of class 1) for a binary classifier, `scores` (a list with one value for each class) for
    another classifier, or `prediction` for any other model: a value, a struct for a row of a data frame, a list with
    the probabilities of each target. If the answer belongs to the whole request, `outputs` is null in all its rows, and
    `answer` of row 0 has it as JSON text, with null in the place of NaN and infinities.

    Args:
        features: the type of the captured features.
        outputs: a struct with one field.
        omitted: features whose values are not captured.
    """
    metadata: dict[bytes | str, bytes | str] = {
        key: json.dumps(sorted(names)).encode()
        for key, names in ((_LEFT_OUT, omitted.left_out), (_HASHED, omitted.hashed))
        if names
    }
    metadata |= schema_metadata()
    return pa.schema(
        [
            pa.field("request_id", pa.string(), nullable=False),
            pa.field("client_request_id", pa.string()),
            pa.field("row", pa.int32(), nullable=False),
            pa.field("received_at", TIME, nullable=False),
            pa.field("event_time", TIME, nullable=False),
            pa.field("model", pa.string(), nullable=False),
            pa.field("version", pa.string(), nullable=False),
            pa.field("role", pa.string(), nullable=False),
            pa.field(KEY, pa.string()),
            pa.field("features", features, nullable=False),
            pa.field("outputs", outputs),
            pa.field(ANSWER, pa.string()),
        ],
        metadata=metadata,
    )


def schema_metadata() -> dict[bytes | str, bytes | str]:
    """Return the metadata of a schema that says its version."""
    return {_SCHEMA: str(SCHEMA).encode()}


def schema_version(schema: pa.Schema) -> int:
    """Return the version of the schema of captured rows or labels."""
    return int((schema.metadata or {}).get(_SCHEMA, b"1"))


def omitted_of(schema: pa.Schema) -> Omitted:
    """Return the features that a segment with this schema lacks; works with any selection of its columns."""
    metadata = schema.metadata or {}
    left_out, hashed = (frozenset(json.loads(metadata.get(key, b"[]"))) for key in (_LEFT_OUT, _HASHED))
    return Omitted(left_out, hashed) if left_out or hashed else NOTHING


def hash_value(value: str | bytes, key: bytes) -> str:
    """Return the keyed hash of `value`: 128 bits of HMAC-SHA-256, in hexadecimal digits.

    >>> hash_value("ann@example.org", b"key") == hash_value("bob@example.org", b"key")
    False
    """
    text = value.encode() if isinstance(value, str) else value
    return hmac.digest(key, text, "sha256").hex()[:_HASH_CHARACTERS]


def is_hashed(field: pa.Field) -> bool:
    """Tell whether the field of a feature contains hashes."""
    return (field.metadata or {}).get(_HASH.encode()) == _HASH_NAME.encode()


@dataclass(frozen=True)
class Privacy:
    """The protection of features before they are captured.

    Args:
        leave_out: names of features that are not stored.
        hash: names of features that are stored as a hash.
        key: the key of the hashes.
    """

    leave_out: frozenset[str] = frozenset()
    hash: frozenset[str] = frozenset()
    key: bytes = field(default=b"", repr=False)

    def omitted(self, features: pa.StructType) -> Omitted:
        """Return the `features` whose values will not be captured."""
        names = {each.name for each in features}
        found = Omitted(self.leave_out & names, (self.hash - self.leave_out) & names)
        return found if found.names else NOTHING

    def type_of(self, features: pa.StructType) -> pa.StructType:
        """Return the type of `features` in the capture."""
        if not self.omitted(features).names:
            return features
        return pa.struct([self._field(each) for each in features if each.name not in self.leave_out] or [_NO_FEATURE])

    def apply(self, rows: pa.StructArray) -> pa.StructArray:
        """Return `rows` in the form for the capture."""
        fields = list(rows.type)
        if not self.omitted(rows.type).names:
            return rows
        kept = [index for index, each in enumerate(fields) if each.name not in self.leave_out]
        arrays = [
            self._hashed(rows.field(index)) if fields[index].name in self.hash else rows.field(index) for index in kept
        ]
        if not arrays:
            return pa.StructArray.from_arrays([pa.nulls(len(rows))], fields=[_NO_FEATURE])
        return pa.StructArray.from_arrays(arrays, fields=[self._field(fields[index]) for index in kept])

    def _field(self, feature: pa.Field) -> pa.Field:
        if feature.name not in self.hash:
            return feature
        return pa.field(feature.name, pa.string(), nullable=feature.nullable, metadata={_HASH: _HASH_NAME})

    def _hashed(self, values: pa.Array) -> pa.Array:
        known: dict[Any, str | None] = {None: None}
        found: list[str | None] = []
        for value in _texts(values):
            if value not in known:
                known[value] = hash_value(value, self.key)
            found.append(known[value])
        return pa.array(found, pa.string())


def _texts(values: pa.Array) -> Iterable[Any]:
    """Return `values` as text or bytes: numbers and times in Arrow's notation, nested values as JSON."""
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        return values.to_pylist()
    if pa.types.is_nested(kind):
        return [None if value is None else json.dumps(value, default=str) for value in values.to_pylist()]
    return values.cast(pa.string()).to_pylist()
