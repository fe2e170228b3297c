"""Parses JSON strictly: no duplicate keys, no NaN, bounded nesting and string length."""

from __future__ import annotations

import json
from typing import Any, NoReturn, cast

from ..contract.field_errors import invalid_field, join_path, printable
from ..http.errors import FieldError, Problem
from ..http.limit_errors import text_too_long

_DEPTH = 16
_TEXT = 1_000_000
# Each list and object takes many times the bytes of its text, and time to check.
_NESTED = 500_000
_WALKED = (str, dict, list)
_WALKED_TYPES = frozenset(_WALKED)


class _DuplicateKeyError(ValueError):
    """An object has one key twice."""


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(key)
            seen.add(key)
    return members


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)
_lenient_decoder = json.JSONDecoder(object_pairs_hook=_object)


def parse_any(body: bytes | str, *, depth: int = _DEPTH, text: int = _TEXT, constants: bool = False) -> Any:
    """Return the JSON value in `body`.

    Args:
        body: one value and nothing else.
        depth: maximum nesting of lists and objects.
        text: maximum number of characters of one string.
        constants: accept NaN, Infinity and -Infinity, so that the caller can name their field.

    Raises:
        Problem: 400: not UTF-8, not JSON (NaN and Infinity are not), nested too deeply, or an object has one key twice;
            413: too many lists and objects; 422: a string is too long.
    """
    try:
        given = body if isinstance(body, str) else body.decode("utf-8")
        nested = given.count("[") + given.count("{")
        if nested > _NESTED:
            raise Problem(
                413, f"the JSON has {nested} lists and objects; the limit is {_NESTED}; send Arrow or binary tensors"
            )
        if given.startswith("\ufeff"):
            raise ValueError("it begins with a byte order mark")
        document = (_lenient_decoder if constants else _decoder).decode(given)
    except RecursionError:
        raise Problem(400, "the body is nested too deeply") from None
    except _DuplicateKeyError as error:
        key = printable(str(error))
        errors = [FieldError(key, "duplicate key")]
        raise Problem(400, f"the body has the key {key} twice in one object", errors=errors) from None
    except ValueError as error:
        raise Problem(400, f"the body is not JSON: {error}") from None
    if isinstance(document, _WALKED) and (nested > depth or len(given) > text):
        _check_limits(document, depth, text)
    return document


def parse_json(body: bytes, *, depth: int = _DEPTH, text: int = _TEXT, constants: bool = False) -> dict[str, Any]:
    """Return the JSON object in `body`; see `parse_any`.

    Raises:
        Problem: also 400: the body is not an object.
    """
    document = parse_any(body, depth=depth, text=text, constants=constants)
    if not isinstance(document, dict):
        raise Problem(400, "the body is not a JSON object")
    return cast("dict[str, Any]", document)


def _check_limits(document: Any, depth: int, text: int) -> None:
    """Check nesting and string lengths level by level: recursion would hit the interpreter's own limit."""
    level: list[tuple[str, Any]] = [("", document)]
    for nesting in range(1, depth + 2):
        inner: list[tuple[str, Any]] = []
        for path, value in level:
            if isinstance(value, str):
                if len(value) > text:
                    raise invalid_field(path or "body", text_too_long(len(value), text))
            elif nesting > depth:
                raise Problem(400, f"the body is nested more than {depth} levels deep")
            elif isinstance(value, dict):
                members = cast("dict[str, Any]", value)
                inner += [(join_path(path, key), item) for key, item in members.items() if isinstance(item, _WALKED)]
            else:
                items = cast("list[Any]", value)
                if _WALKED_TYPES.isdisjoint(map(type, items)):
                    continue
                inner += [(f"{path}[{at}]", item) for at, item in enumerate(items) if isinstance(item, _WALKED)]
        level = inner
