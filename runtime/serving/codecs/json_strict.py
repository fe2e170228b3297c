"""JSON bodies, read strictly: what is not JSON, or says a thing twice, is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn, cast

from ..http.errors import FieldError, Problem

__all__ = ["describe", "join", "named", "parse_any", "parse_json", "refusal", "refuse", "wrong"]

_DEPTH = 16
_TEXT = 100_000
_SHOWN = 100
_WALKED = (str, dict, list)
_WALKED_TYPES = frozenset(_WALKED)
_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
}


class _TwiceError(ValueError):
    """A key which one object has twice."""


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _TwiceError(key)
            seen.add(key)
    return found


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant)


def parse_any(body: bytes | str, *, depth: int = _DEPTH, text: int = _TEXT) -> Any:
    """Return the JSON value in `body`.

    Args:
        body: the value and nothing besides.
        depth: how deeply lists and objects may be nested.
        text: characters which one string may have.

    Raises:
        Problem: 400, it is not UTF-8, not JSON (NaN and Infinity are not), nested too deeply, or an object has a key
            twice; 422, a string is too long.
    """
    try:
        given = body if isinstance(body, str) else body.decode("utf-8")
        if given.startswith("\ufeff"):
            raise ValueError("it begins with a byte order mark")
        document = _decoder.decode(given)
    except RecursionError:
        raise Problem(400, "the body is nested too deeply") from None
    except _TwiceError as error:
        key = named(str(error))
        raise Problem(
            400, f"the body has the key {key} twice in one object", errors=[FieldError(key, "twice")]
        ) from None
    except ValueError as error:
        raise Problem(400, f"the body is not JSON: {error}") from None
    if isinstance(document, _WALKED) and (given.count("[") + given.count("{") > depth or len(given) > text):
        _check(document, depth, text)
    return document


def parse_json(body: bytes, *, depth: int = _DEPTH, text: int = _TEXT) -> dict[str, Any]:
    """Return the JSON object in `body`; arguments and errors are those of `parse_any`.

    Raises:
        Problem: also 400, it is no object.
    """
    document = parse_any(body, depth=depth, text=text)
    if not isinstance(document, dict):
        raise Problem(400, "the body is not a JSON object")
    return cast("dict[str, Any]", document)


def _check(document: Any, depth: int, text: int) -> None:
    """Walk `document` level by level: a recursion would be bounded by the interpreter's limit."""
    level: list[tuple[str, Any]] = [("", document)]
    for nesting in range(1, depth + 2):
        inner: list[tuple[str, Any]] = []
        for path, value in level:
            if isinstance(value, str):
                if len(value) > text:
                    raise wrong(path or "body", f"a string may have {text} characters, this one has {len(value)}")
            elif nesting > depth:
                raise Problem(400, f"the body is nested more than {depth} deep")
            elif isinstance(value, dict):
                members = cast("dict[str, Any]", value)
                inner += [(join(path, key), item) for key, item in members.items() if isinstance(item, _WALKED)]
            else:
                items = cast("list[Any]", value)
                if _WALKED_TYPES.isdisjoint(map(type, items)):
                    continue
                inner += [(f"{path}[{at}]", item) for at, item in enumerate(items) if isinstance(item, _WALKED)]
        level = inner


def named(name: str) -> str:
    """Return `name`, a client's, as an error may show it: not endless, and sayable in UTF-8."""
    shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
    return shown.encode("utf-8", "backslashreplace").decode()


def join(path: str, key: str) -> str:
    """Return the path of the member `key` of the object at `path`."""
    return f"{path}.{named(key)}" if path else named(key)


def describe(value: Any) -> str:
    """Say what `value`, out of JSON, is."""
    return "null" if value is None else _NAMES.get(type(value), type(value).__name__)


def wrong(field: str, message: str) -> Problem:
    """Return the 422 which says `message` of `field`."""
    return refusal([FieldError(field, message)])


def refuse(errors: Sequence[FieldError]) -> None:
    """Raise the 422 which names `errors`, where there are any."""
    if errors:
        raise refusal(errors)


def refusal(errors: Sequence[FieldError]) -> Problem:
    """Return the 422 which names `errors`, at least one."""
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    return Problem(422, f"{errors[0]}{more}", errors=errors)
