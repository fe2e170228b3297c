"""Names the fields of a request in error messages, and builds the 422 answers that list them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..http.errors import FieldError, Problem

_PRINTED = 100
_TYPE_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
}


def printable(name: str) -> str:
    """Return `name`, sent by a client, as an error can show it: at most 100 characters, valid UTF-8."""
    short = name if len(name) <= _PRINTED else f"{name[:_PRINTED]}..."
    return short.encode("utf-8", "backslashreplace").decode()


def join_path(path: str, key: str) -> str:
    """Return the path of the member `key` of the object at `path`."""
    return f"{path}.{printable(key)}" if path else printable(key)


def type_name(value: Any) -> str:
    """Return the JSON type of `value`, with its article."""
    return "null" if value is None else _TYPE_NAMES.get(type(value), type(value).__name__)


def invalid_field(field: str, message: str) -> Problem:
    """Return the 422 for one invalid field."""
    return invalid_fields([FieldError(field, message)])


def invalid_fields(errors: Sequence[FieldError]) -> Problem:
    """Return the 422 for `errors`, at least one."""
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    return Problem(422, f"{errors[0]}{more}", errors=errors)


def raise_field_errors(errors: Sequence[FieldError]) -> None:
    """Raise the 422 for `errors`, if there are any."""
    if errors:
        raise invalid_fields(errors)
