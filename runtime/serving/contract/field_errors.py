"""Names the fields of a request in error messages, and builds the 422 answers that list them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Any, cast

from ..http.errors import FieldError, Problem

_PRINTED = 100
_SHOWN, _SHOWN_CHARACTERS, _SHOWN_ITEMS, _SHOWN_DEPTH, _SHOWN_BITS = 200, 60, 4, 2, 200
_TYPE_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    bytes: "bytes",
    datetime: "a time",
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


def show_value(value: Any) -> str:
    """Return a value that a client sent, as an error can show it: its JSON type, and its start as ASCII JSON.

    The text is short for any value, and control characters are escaped.

    >>> show_value("abc"), show_value(None), show_value([1, {"a": True}])
    ('a string: "abc"', 'null', 'a list: [1, {"a": true}]')
    """
    if value is None:
        return "null"
    shown = _show(value, _SHOWN_DEPTH)
    return f"{type_name(value)}: {shown if len(shown) <= _SHOWN else f'{shown[:_SHOWN]}...'}"


def _show(value: Any, depth: int) -> str:
    if isinstance(value, str):
        if len(value) <= _SHOWN_CHARACTERS:
            return json.dumps(value)
        return f'{json.dumps(value[:_SHOWN_CHARACTERS])[:-1]}..." ({len(value)} characters)'
    if isinstance(value, (list, tuple)):
        items = cast("Sequence[Any]", value)
        shown = [_show(item, depth - 1) for item in items[:_SHOWN_ITEMS]] if depth else []
        return f"[{_joined(shown, len(items))}]"
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        first = islice(members.items(), _SHOWN_ITEMS) if depth else ()
        shown = [f"{_show(key, 0)}: {_show(item, depth - 1)}" for key, item in first]
        return f"{{{_joined(shown, len(members))}}}"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > _SHOWN_BITS:
        return f"{value.bit_length()} bits"
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if isinstance(value, datetime):
        return value.isoformat()
    text = ascii(value[:_SHOWN_CHARACTERS] if isinstance(value, bytes) else value)
    return text if len(text) <= _PRINTED else f"{text[:_PRINTED]}..."


def _joined(shown: list[str], size: int) -> str:
    return ", ".join(shown if len(shown) == size else [*shown, "..."])


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
