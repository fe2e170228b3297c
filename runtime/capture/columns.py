"""The columns of a capture, and what is kept of those which are personal data.

A column may be left out, or only a keyed hash of it be kept. A hashed column is a string column whose field says so;
the schema of a segment names both kinds, so that whoever reads it later knows what is missing.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

__all__ = ["NOTHING", "Omitted", "Privacy", "capture_schema", "hash_value", "is_hashed", "omitted_of"]

TIME = pa.timestamp("us", tz="UTC")
_LEFT_OUT, _HASHED = b"tidemill.left_out", b"tidemill.hashed"
_HASH = "tidemill.hash"
_HASH_NAME = "hmac-sha256-128"
_HASH_CHARACTERS = 32
# Parquet knows no struct without fields.
_NO_FEATURE = pa.field("_left_out", pa.null())


@dataclass(frozen=True)
class Omitted:
    """Features of which the capture does not hold the values.

    Attributes:
        left_out: those which are not there at all.
        hashed: those of which there is only a hash.
    """

    left_out: frozenset[str] = frozenset()
    hashed: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """All of them."""
        return self.left_out | self.hashed


NOTHING = Omitted()


def capture_schema(features: pa.StructType, outputs: pa.StructType, omitted: Omitted = NOTHING) -> pa.Schema:
    """Return the schema of a capture segment for a model with these `features` and `outputs`.

    `event_time` is what the client said, else `received_at`. `role` is the alias by which the version answered, such
    as `champion`, or `shadow` where it was asked besides and its answer went to nobody. `outputs` holds `score` (the
    probability of class 1) for a binary classifier, `scores` (a list, one for each class) for another classifier,
    `prediction` for everything else.

    Args:
        features: the features as they are captured.
        outputs: a struct with one field.
        omitted: what the features lack.
    """
    said: dict[bytes | str, bytes | str] = {
        key: json.dumps(sorted(names)).encode()
        for key, names in ((_LEFT_OUT, omitted.left_out), (_HASHED, omitted.hashed))
        if names
    }
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
            pa.field("features", features, nullable=False),
            pa.field("outputs", outputs, nullable=False),
        ],
        metadata=said or None,
    )


def omitted_of(schema: pa.Schema) -> Omitted:
    """Return what the segment with this schema lacks; also of a schema which was read with some columns only."""
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
    """Tell whether a feature's field holds hashes."""
    return (field.metadata or {}).get(_HASH.encode()) == _HASH_NAME.encode()


@dataclass(frozen=True)
class Privacy:
    """What is done to features before they are captured.

    Args:
        leave_out: names of those which are not kept.
        hash: names of those of which only a hash is kept.
        key: the key of the hashes.
    """

    leave_out: frozenset[str] = frozenset()
    hash: frozenset[str] = frozenset()
    key: bytes = field(default=b"", repr=False)

    def omitted(self, features: pa.StructType) -> Omitted:
        """Return which of `features` the capture will lack."""
        names = {each.name for each in features}
        found = Omitted(self.leave_out & names, (self.hash - self.leave_out) & names)
        return found if found.names else NOTHING

    def type_of(self, features: pa.StructType) -> pa.StructType:
        """Return `features` as they are captured."""
        if not self.omitted(features).names:
            return features
        return pa.struct([self._field(each) for each in features if each.name not in self.leave_out] or [_NO_FEATURE])

    def apply(self, rows: pa.StructArray) -> pa.StructArray:
        """Return `rows` as they are captured."""
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

    def _field(self, of: pa.Field) -> pa.Field:
        if of.name not in self.hash:
            return of
        return pa.field(of.name, pa.string(), nullable=of.nullable, metadata={_HASH: _HASH_NAME})

    def _hashed(self, values: pa.Array) -> pa.Array:
        known: dict[Any, str | None] = {None: None}
        found: list[str | None] = []
        for value in _texts(values):
            if value not in known:
                known[value] = hash_value(value, self.key)
            found.append(known[value])
        return pa.array(found, pa.string())


def _texts(values: pa.Array) -> Iterable[Any]:
    """Return `values` as text or bytes: numbers and times as Arrow writes them, what has parts as JSON."""
    of = values.type
    if pa.types.is_string(of) or pa.types.is_large_string(of) or pa.types.is_binary(of):
        return values.to_pylist()
    if pa.types.is_nested(of):
        return [None if value is None else json.dumps(value, default=str) for value in values.to_pylist()]
    return values.cast(pa.string()).to_pylist()
