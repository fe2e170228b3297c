"""Turns validation errors into problems with a hint, and looks up paths in the schema. Imports no Pulumi."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Iterator
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from ...components.targets.checks import Problem
from ..settings import StackConfig

KeyPath = tuple[str | int, ...]
"""Keys and indices of a value."""

_MOST_CHARACTERS = 200


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the name in `known` that is most similar to `word`, or None.

    >>> nearest("promot", ["promote", "serve"])
    'promote'
    """
    found = difflib.get_close_matches(word, list(known), n=1)
    return found[0] if found else None


@functools.cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def schema_at(path: KeyPath, model: type[BaseModel] = StackConfig) -> dict[str, Any]:
    """Return the part of the JSON Schema of `model` that describes `path`, or {}."""
    root = _schema(model)
    node: dict[str, Any] = _resolve(root, root)
    for part in path:
        if isinstance(part, int):
            node = cast("dict[str, Any]", node.get("items", {}))
        else:
            patterns = list(cast("dict[str, Any]", node.get("patternProperties", {})).values())
            other: Any = patterns[0] if patterns else node.get("additionalProperties")
            node = cast("dict[str, Any]", node.get("properties", {})).get(part) or other or {}
        node = _resolve(root, node) if isinstance(cast("Any", node), dict) else {}
    return node


def _resolve(root: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for option in cast("list[dict[str, Any]]", node.get("anyOf", [])):
        if option.get("type") != "null":
            return _resolve(root, {**option, **{key: value for key, value in node.items() if key != "anyOf"}})
    reference = node.get("$ref")
    if isinstance(reference, str):
        target = cast("dict[str, Any]", root["$defs"][reference.rsplit("/", 1)[1]])
        return {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    return node


def schema_problems(error: ValidationError, model: type[BaseModel] = StackConfig) -> Iterator[Problem]:
    """Yield the problems in a validation error of `model`, likely causes first."""
    # An unknown key is often the cause of a missing one.
    details = sorted(error.errors(include_url=False), key=lambda detail: detail["type"] != "extra_forbidden")
    for detail in details:
        path: KeyPath = tuple(part for part in detail["loc"] if part != "[key]")
        kind, context = detail["type"], detail.get("ctx", {})
        value: Any = detail.get("input")
        schema = schema_at(path, model)
        hint = str(schema["description"]) if "description" in schema else None
        message = detail["msg"][:1].lower() + detail["msg"][1:]
        if kind == "missing":
            message, value, hint = "is missing", None, f"add it: {hint}" if hint else "add it"
        elif kind == "extra_forbidden":
            message, hint = "unknown key", _known_keys(path, model)
            value = None if isinstance(value, dict | list) else value
        elif kind == "literal_error":
            choices = str(context["expected"]).replace("'", "")
            close = nearest(str(value), choices.replace(" or ", ", ").split(", "))
            message, hint = "unknown value", f"did you mean {close}?" if close else f"use {choices}"
        elif kind == "value_error":
            message, _, hint = str(context["error"]).partition("; ")
        elif kind == "string_pattern_mismatch":
            message = f"does not match {context['pattern']}" + (" as a name" if "[key]" in detail["loc"] else "")
        if "receivers" in path:
            value = None  # it may be a secret, given instead of the secret's name
        elif isinstance(value, str) and len(value) > _MOST_CHARACTERS:
            value = value[:_MOST_CHARACTERS] + "..."
        yield Problem(path, message, value, (hint or "fix it").rstrip("."))


def _known_keys(path: KeyPath, model: type[BaseModel]) -> str:
    known = list(cast("dict[str, Any]", schema_at(path[:-1], model).get("properties", {})))
    close = nearest(str(path[-1]), known)
    return f"did you mean {close}?" if close else f"use one of {', '.join(known)}"
