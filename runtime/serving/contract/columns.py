"""One column of a contract: its type, and the conversion of JSON values to it."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, cast

import numpy as np

from ..http.errors import FieldError
from .field_errors import printable, show_value

Kind = Literal[
    "boolean", "integer", "long", "float", "double", "string", "binary", "datetime", "tensor", "json"
]  # fmt: skip

BITS = {"integer": 31, "long": 63}
LARGEST = {"float": float(np.finfo(np.float32).max), "double": float(np.finfo(np.float64).max)}
FIRST_TIME, LAST_TIME = datetime(1678, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
# The Python types of valid JSON values, by numpy's kind.
_JSON_TYPES: dict[str, tuple[type, ...]] = {"U": (str,), "b": (bool,), "i": (int,), "u": (int,), "f": (int, float)}
_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d(\.\d{1,6}(?P<nanoseconds>\d{0,3}))?)?(?P<zone>[Zz]|[+-]\d\d:\d\d)?)?",
    re.ASCII,
)
EXPECTED: dict[str, str] = {
    "boolean": "true or false",
    "integer": "an integer",
    "long": "an integer",
    "float": "a number",
    "double": "a number",
    "string": "a string",
    "binary": "bytes in base64",
    "datetime": "a time such as 2013-07-01T12:00:00Z",
    "json": "a JSON value",
}


class InvalidValueError(ValueError):
    """A value is invalid for its column; the message says why."""


@dataclass(frozen=True)
class Column:
    """One input of a model.

    Attributes:
        kind: its type in the signature.
        required: the value must be present and not null.
        dtype: of a tensor, its numpy name; `str` for text.
        shape: of a tensor, rows first; -1 is any size.
        spec: of JSON, its type in MLflow's notation.
        integer_name: the name is an integer in the signature and in the model's data frame.
    """

    name: str
    kind: Kind
    required: bool = True
    dtype: str = ""
    shape: tuple[int, ...] = ()
    spec: Mapping[str, Any] | None = field(default=None, hash=False)
    integer_name: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the column as a JSON document."""
        document: dict[str, Any] = {"name": self.name, "kind": self.kind, "required": self.required}
        if self.kind == "tensor":
            document |= {"dtype": self.dtype, "shape": list(self.shape)}
        if self.spec is not None:
            document["spec"] = self.spec
        if self.integer_name:
            document["integer_name"] = True
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Column:
        """Return the column of a document from `to_json`."""
        return cls(**{**document, "shape": tuple(document.get("shape", ()))})

    @property
    def expected(self) -> str:
        """The expected type, for error messages."""
        if self.kind == "tensor":
            return f"{self.dtype} values" + (f" of shape {list(self.shape[1:])}" if self.shape[1:] else "")
        return f"{EXPECTED[self.kind]} ({self.kind})" + ("" if self.required else " or null")

    def convert(self, value: Any) -> Any:
        """Return `value`, parsed from JSON, converted to the type of the column.

        Raises:
            InvalidValueError: it is invalid.
        """
        if value is None:
            if not self.required:
                return None
        elif self.kind == "tensor":
            return self._convert_tensor(value)
        elif self.kind == "json":
            return convert_json(value, self.spec or {"type": "any"}, printable(self.name))
        else:
            return convert_scalar(self.kind, value, printable(self.name), self.expected)
        raise InvalidValueError(f"{printable(self.name)} must be {self.expected}, got null")

    def _convert_tensor(self, value: Any) -> np.ndarray[Any, Any]:
        shape: list[int] = []
        flat: list[Any] = [value]
        for position, size in enumerate(self.shape[1:]):
            if not all(type(item) is list for item in flat):
                raise InvalidValueError(f"{printable(self.name)} must be lists nested {len(self.shape) - 1} deep")
            sizes = {len(item) for item in flat}
            if len(sizes) != 1 or (size >= 0 and sizes != {size}):
                expected = f"{size} values" if size >= 0 else "lists of one length"
                got = ", ".join(str(found) for found in sorted(sizes)[:5])
                raise InvalidValueError(
                    f"{printable(self.name)} must have {expected} in dimension {position + 1}, got {got}"
                )
            shape.append(sizes.pop())
            flat = [each for item in flat for each in item]
            if not flat:
                raise InvalidValueError(f"{printable(self.name)} is empty")
        return self.array(flat).reshape(shape)

    def array(self, flat: list[Any]) -> np.ndarray[Any, Any]:
        """Return `flat`, values parsed from JSON, as an array of the tensor's type.

        Raises:
            InvalidValueError: one is invalid.
        """
        kinds = set(map(type, flat))
        if self.dtype in ("str", "object"):
            if kinds <= {str}:
                for text in flat:
                    _check_text(text, printable(self.name))
                return np.array(flat, dtype=object if self.dtype == "object" else str)
        else:
            dtype = np.dtype(self.dtype)
            if dtype.kind == "b" and kinds <= {bool}:
                return np.array(flat, dtype=dtype)
            if (dtype.kind in "iu" and kinds <= {int}) or (dtype.kind == "f" and kinds <= {int, float}):
                return self._number_array(flat, dtype)
        accepted = _JSON_TYPES["U" if self.dtype in ("str", "object") else np.dtype(self.dtype).kind]
        wrong = next(item for item in flat if type(item) not in accepted)
        raise InvalidValueError(f"{printable(self.name)} must be {self.expected}, got {show_value(wrong)}")

    def _number_array(self, flat: list[Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        limits: Any = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        widest = {"f": np.float64, "i": np.int64, "u": np.uint64}[dtype.kind]
        try:
            numbers = np.array(flat, dtype=widest)
        except OverflowError:
            numbers = None
        # This form is false for NaN.
        if numbers is None or not bool(((numbers >= limits.min) & (numbers <= limits.max)).all()):
            # Python's own numbers: a huge integer has no numpy type.
            plain = _JSON_TYPES[dtype.kind][-1]
            low, high = plain(limits.min), plain(limits.max)
            wrong = next(number for number in flat if not low <= number <= high)
            raise InvalidValueError(f"{printable(self.name)} is out of range for {self.dtype}, got {show_value(wrong)}")
        return numbers.astype(dtype)


def convert_scalar(kind: str, value: Any, name: str, expected: str) -> Any:
    """Return `value`, parsed from JSON and not null, converted to `kind`.

    Raises:
        InvalidValueError: it is invalid; the message begins with `name`.
    """
    of = type(value)
    if kind in LARGEST:
        if of is float or of is int:
            # Compared before conversion: a huge integer has no float.
            if not abs(value) <= LARGEST[kind]:
                raise InvalidValueError(f"{name} is out of range for {kind}, got {show_value(value)}")
            return float(value)
    elif kind in BITS:
        if of is float and value.is_integer():
            # JavaScript and pandas write whole numbers in this form too.
            value, of = int(value), int
        if of is int:
            if not -(1 << BITS[kind]) <= value < 1 << BITS[kind]:
                raise InvalidValueError(f"{name} is out of range for {kind}, got {show_value(value)}")
            return value
    elif kind == "boolean":
        if of is bool:
            return value
    elif of is str:
        if kind == "datetime":
            return parse_moment(value, name)
        return _decode_base64(value, name) if kind == "binary" else _check_text(value, name)
    raise InvalidValueError(f"{name} must be {expected}, got {show_value(value)}")


def convert_json(value: Any, spec: Mapping[str, Any], name: str) -> Any:
    """Return `value`, part of a JSON column, converted to the type `spec`; the result is a JSON value.

    Raises:
        InvalidValueError: it is invalid.
    """
    kind = spec["type"]
    if kind == "any":
        return _check_json(value, name)
    if value is None:
        if spec.get("required", True):
            raise InvalidValueError(f"{name} must not be null")
        return None
    if kind == "array":
        if not isinstance(value, list):
            raise InvalidValueError(f"{name} must be a list, got {show_value(value)}")
        return [convert_json(item, spec["items"], f"{name}[{at}]") for at, item in enumerate(cast("list[Any]", value))]
    if kind in ("object", "map"):
        if not isinstance(value, dict):
            raise InvalidValueError(f"{name} must be an object, got {show_value(value)}")
        members = cast("dict[str, Any]", value)
        if kind == "map":
            return {
                _check_text(key, name): convert_json(item, spec["values"], f"{name}.{printable(key)}")
                for key, item in members.items()
            }
        properties: Mapping[str, Mapping[str, Any]] = spec["properties"]
        for key in members:
            if key not in properties:
                raise InvalidValueError(f"{name}.{printable(key)} is unknown")
        for key, part in properties.items():
            if key not in members and part.get("required", True):
                raise InvalidValueError(f"{name}.{printable(key)} is missing")
        return {key: convert_json(item, properties[key], f"{name}.{printable(key)}") for key, item in members.items()}
    converted = convert_scalar(kind, value, name, f"{EXPECTED[kind]} ({kind})")
    # Inside JSON, times stay text, which `frames` converts; and bytes, whose text MLflow gives to the model.
    if kind == "datetime":
        return converted.replace(tzinfo=None).isoformat() + "Z"
    return value if kind == "binary" else converted


def _check_json(value: Any, name: str) -> Any:
    """Return `value` if it can be written as JSON again: numbers in the range of a double, valid Unicode."""
    if isinstance(value, list):
        return [_check_json(item, f"{name}[{at}]") for at, item in enumerate(cast("list[Any]", value))]
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {_check_text(key, name): _check_json(item, f"{name}.{printable(key)}") for key, item in members.items()}
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        convert_scalar("double", value, name, "")
        return value
    if isinstance(value, str):
        return _check_text(value, name)
    raise InvalidValueError(f"{name} must be a JSON value, got {show_value(value)}")


def _check_text(value: str, name: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidValueError(f"{name} has an unpaired surrogate") from None
    return value


def _decode_base64(value: str, name: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidValueError(f"{name} is not base64, got {show_value(value)}") from None


def parse_moment(text: Any, name: str) -> datetime:
    """Return the time `text` in UTC; without a zone, it is taken as UTC. The clock can be left out.

    Raises:
        InvalidValueError: not a time, finer than a microsecond, or outside 1678 to 2261; begins with `name`.
    """
    found = _MOMENT.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise InvalidValueError(f"{name} must be {EXPECTED['datetime']}, or a date, got {show_value(text)}")
    if (found["nanoseconds"] or "").strip("0"):
        raise InvalidValueError(
            f"{name} is finer than a microsecond, the unit in which values are kept, got {show_value(text)}"
        )
    try:
        moment = datetime.fromisoformat(text.upper())
        moment = moment.astimezone(UTC) if found["zone"] else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidValueError(f"{name} must be {EXPECTED['datetime']}, or a date, got {show_value(text)}") from None
    if not FIRST_TIME <= moment < LAST_TIME:
        raise InvalidValueError(f"{name} must be from 1678 to 2261, got {show_value(text)}")
    return moment


def parse_rfc3339(text: Any) -> datetime:
    """Return the RFC 3339 time `text` in UTC, truncated to microseconds.

    Raises:
        InvalidValueError: not a time with an offset, or outside 1678 to 2261.
    """
    if isinstance(text, str) and _RFC3339.fullmatch(text):
        try:
            moment = datetime.fromisoformat(text.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            moment = None
        if moment is not None and FIRST_TIME <= moment < LAST_TIME:
            return moment
    raise InvalidValueError(
        "expected an RFC 3339 time with an offset, such as 2013-07-01T12:00:00Z, from 1678 to 2261, "
        f"got {show_value(text)}"
    )


def parse_time(text: Any, field: str) -> datetime:
    """Return `parse_rfc3339(text)`.

    Raises:
        FieldError: `text` is invalid; names `field`.
    """
    try:
        return parse_rfc3339(text)
    except InvalidValueError as error:
        raise FieldError(field, str(error)) from None
