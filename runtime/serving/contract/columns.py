"""One column of a contract, and the values it takes."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, cast

import numpy as np

from ..codecs.json_strict import describe, named
from ..http.errors import FieldError

__all__ = ["BITS", "LARGEST", "Column", "Kind", "UnfitValueError", "as_time", "parse_time"]

Kind = Literal[
    "boolean", "integer", "long", "float", "double", "string", "binary", "datetime", "tensor", "json"
]  # fmt: skip

BITS = {"integer": 31, "long": 63}
LARGEST = {"float": float(np.finfo(np.float32).max), "double": float(np.finfo(np.float64).max)}
FIRST_TIME, LAST_TIME = datetime(1678, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_WORDS: dict[str, str] = {
    "boolean": "true or false",
    "integer": "an integer",
    "long": "an integer",
    "float": "a number",
    "double": "a number",
    "string": "a string",
    "binary": "bytes in base64",
    "datetime": "an RFC 3339 time",
    "json": "a JSON value",
}


class UnfitValueError(ValueError):
    """A value which its column does not take; the message says why."""


@dataclass(frozen=True)
class Column:
    """One input.

    Attributes:
        kind: its type in the signature.
        required: it must be there and not be null.
        dtype: of a tensor, as numpy names it; `str` for text.
        shape: of a tensor, its first dimension the rows; -1 is any size.
        spec: of JSON, its type as MLflow writes it: lists, objects, maps and what is in them.
    """

    name: str
    kind: Kind
    required: bool = True
    dtype: str = ""
    shape: tuple[int, ...] = ()
    spec: Mapping[str, Any] | None = field(default=None, hash=False)

    @property
    def wants(self) -> str:
        """What the column takes, in words."""
        if self.kind == "tensor":
            return f"{self.dtype} values" + (f" of the shape {list(self.shape[1:])}" if self.shape[1:] else "")
        return f"{_WORDS[self.kind]} ({self.kind})" + ("" if self.required else " or null")

    def convert(self, value: Any) -> Any:
        """Return `value`, out of JSON, as the column holds it.

        Raises:
            UnfitValueError: it does not fit.
        """
        if value is None:
            if not self.required:
                return None
        elif self.kind == "tensor":
            return self._tensor(value)
        elif self.kind == "json":
            return _fit(value, self.spec or {"type": "any"}, named(self.name))
        else:
            return scalar(self.kind, value, named(self.name), self.wants)
        raise UnfitValueError(f"{named(self.name)} wants {self.wants}, got null")

    def _tensor(self, value: Any) -> np.ndarray[Any, Any]:
        shape: list[int] = []
        flat: list[Any] = [value]
        for position, size in enumerate(self.shape[1:]):
            if not all(type(item) is list for item in flat):
                raise UnfitValueError(f"{named(self.name)} wants lists nested {len(self.shape) - 1} deep")
            sizes = {len(item) for item in flat}
            if len(sizes) != 1 or (size >= 0 and sizes != {size}):
                wanted = f"{size} values" if size >= 0 else "lists of one length"
                raise UnfitValueError(
                    f"{named(self.name)} wants {wanted} in dimension {position + 1}, got {_some(sizes)}"
                )
            shape.append(sizes.pop())
            flat = [each for item in flat for each in item]
            if not flat:
                raise UnfitValueError(f"{named(self.name)} is empty")
        return self.array(flat).reshape(shape)

    def array(self, flat: list[Any]) -> np.ndarray[Any, Any]:
        """Return `flat`, values out of JSON, as an array of a tensor's type.

        Raises:
            UnfitValueError: one does not fit.
        """
        kinds = set(map(type, flat))
        if self.dtype in ("str", "object"):
            if kinds <= {str}:
                for text in flat:
                    _sayable(text, named(self.name))
                return np.array(flat, dtype=object if self.dtype == "object" else str)
        else:
            dtype = np.dtype(self.dtype)
            if dtype.kind == "b" and kinds <= {bool}:
                return np.array(flat, dtype=dtype)
            if (dtype.kind in "iu" and kinds <= {int}) or (dtype.kind == "f" and kinds <= {int, float}):
                return self._numbers(flat, dtype)
        odd = ", ".join(sorted(describe(next(item for item in flat if type(item) is kind)) for kind in kinds))
        raise UnfitValueError(f"{named(self.name)} wants {self.wants}, got {odd}")

    def _numbers(self, flat: list[Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        limits: Any = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        widest = {"f": np.float64, "i": np.int64, "u": np.uint64}[dtype.kind]
        try:
            numbers = np.array(flat, dtype=widest)
        except OverflowError:
            numbers = None
        # Written so that NaN fails.
        if numbers is None or not bool(((numbers >= limits.min) & (numbers <= limits.max)).all()):
            raise UnfitValueError(f"{named(self.name)} is out of the range of {self.dtype}")
        return numbers.astype(dtype)


def _some(sizes: set[int]) -> str:
    return ", ".join(str(size) for size in sorted(sizes)[:5])


def scalar(kind: str, value: Any, name: str, wants: str) -> Any:
    """Return `value`, out of JSON and not null, as a column of `kind` holds it.

    Raises:
        UnfitValueError: it does not fit; the message begins with `name`.
    """
    of = type(value)
    if kind in LARGEST:
        if of is float or of is int:
            # Compared as it is: a huge integer has no float.
            if not abs(value) <= LARGEST[kind]:
                raise UnfitValueError(f"{name} is out of the range of {kind}")
            return float(value)
    elif kind in BITS:
        if of is int:
            if not -(1 << BITS[kind]) <= value < 1 << BITS[kind]:
                raise UnfitValueError(f"{name} is out of the range of {kind}")
            return value
    elif kind == "boolean":
        if of is bool:
            return value
    elif of is str:
        if kind == "datetime":
            return as_time(value)
        return _bytes(value, name) if kind == "binary" else _sayable(value, name)
    raise UnfitValueError(f"{name} wants {wants}, got {describe(value)}")


def _fit(value: Any, spec: Mapping[str, Any], name: str) -> Any:
    """Return `value`, a part of a JSON column, when it is as `spec` says."""
    kind = spec["type"]
    if kind == "any":
        return _plain(value, name)
    if value is None:
        if spec.get("required", True):
            raise UnfitValueError(f"{name} must not be null")
        return None
    if kind == "array":
        if not isinstance(value, list):
            raise UnfitValueError(f"{name} wants a list, got {describe(value)}")
        return [_fit(item, spec["items"], f"{name}[{at}]") for at, item in enumerate(cast("list[Any]", value))]
    if kind in ("object", "map"):
        if not isinstance(value, dict):
            raise UnfitValueError(f"{name} wants an object, got {describe(value)}")
        members = cast("dict[str, Any]", value)
        if kind == "map":
            return {
                _sayable(key, name): _fit(item, spec["values"], f"{name}.{named(key)}") for key, item in members.items()
            }
        wanted: Mapping[str, Mapping[str, Any]] = spec["properties"]
        for key in members:
            if key not in wanted:
                raise UnfitValueError(f"{name}.{named(key)} is unknown")
        for key, part in wanted.items():
            if key not in members and part.get("required", True):
                raise UnfitValueError(f"{name}.{named(key)} is missing")
        return {key: _fit(item, wanted[key], f"{name}.{named(key)}") for key, item in members.items()}
    return scalar(kind, value, name, f"{_WORDS[kind]} ({kind})")


def _plain(value: Any, name: str) -> Any:
    """Return any JSON value which can be said again: numbers which a double reaches, whole text."""
    if isinstance(value, list):
        return [_plain(item, f"{name}[{at}]") for at, item in enumerate(cast("list[Any]", value))]
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {_sayable(key, name): _plain(item, f"{name}.{named(key)}") for key, item in members.items()}
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        scalar("double", value, name, "")
        return value
    if isinstance(value, str):
        return _sayable(value, name)
    raise UnfitValueError(f"{name} wants a JSON value, got {describe(value)}")


def _sayable(value: str, name: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise UnfitValueError(f"{name}: half of a surrogate pair is not text") from None
    return value


def _bytes(value: str, name: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise UnfitValueError(f"{name} is not base64") from None


def as_time(text: Any) -> datetime:
    """Return the RFC 3339 time `text`, with its offset, in UTC; what is finer than a microsecond is cut off.

    Raises:
        UnfitValueError: it is not one, or lies outside 1678 to 2261.
    """
    if isinstance(text, str) and _RFC3339.fullmatch(text):
        try:
            moment = datetime.fromisoformat(text.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            moment = None
        if moment is not None and FIRST_TIME <= moment < LAST_TIME:
            return moment
    raise UnfitValueError("wants an RFC 3339 time with its offset, such as 2013-07-01T12:00:00Z, of 1678 to 2261")


def parse_time(text: Any, field: str) -> datetime:
    """Return `as_time(text)`.

    Raises:
        FieldError: it is none; names `field`.
    """
    try:
        return as_time(text)
    except UnfitValueError as error:
        raise FieldError(field, str(error)) from None
