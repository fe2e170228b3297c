"""What the models say of a path in a config file, and the problems of a file in their words. Imports no Pulumi."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Iterator
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from ...components.targets.checks import Problem
from ..settings import StackConfig

__all__ = ["KeyPath", "nearest", "schema_problems", "schema_at"]

KeyPath = tuple[str | int, ...]
"""Keys and indices which lead to a value."""

_SHOWN = 200


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` that `word` probably meant.

    >>> nearest("promot", ["promote", "serve"])
    'promote'
    """
    found = difflib.get_close_matches(word, list(known), n=1)
    return found[0] if found else None


@functools.cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def schema_at(path: KeyPath, model: type[BaseModel] = StackConfig) -> dict[str, Any]:
    """Return the part of the JSON Schema of `model` which describes `path`, or {}."""
    whole = _schema(model)
    node: dict[str, Any] = _resolve(whole, whole)
    for part in path:
        if isinstance(part, int):
            node = cast("dict[str, Any]", node.get("items", {}))
        else:
            patterns = list(cast("dict[str, Any]", node.get("patternProperties", {})).values())
            other: Any = patterns[0] if patterns else node.get("additionalProperties")
            node = cast("dict[str, Any]", node.get("properties", {})).get(part) or other or {}
        node = _resolve(whole, node) if isinstance(cast("Any", node), dict) else {}
    return node


def _resolve(whole: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for option in cast("list[dict[str, Any]]", node.get("anyOf", [])):
        if option.get("type") != "null":
            return _resolve(whole, {**option, **{key: value for key, value in node.items() if key != "anyOf"}})
    reference = node.get("$ref")
    if isinstance(reference, str):
        target = cast("dict[str, Any]", whole["$defs"][reference.rsplit("/", 1)[1]])
        return {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    return node


def schema_problems(error: ValidationError, model: type[BaseModel] = StackConfig) -> Iterator[Problem]:
    """Yield what `model` has against a file, the likely causes of others first."""
    told = error.errors(include_url=False)
    # An unknown key is likely the cause of a missing one: tell it first.
    told.sort(key=lambda problem: problem["type"] != "extra_forbidden")
    for one in told:
        path: KeyPath = tuple(part for part in one["loc"] if part != "[key]")
        kind, context = one["type"], one.get("ctx", {})
        value: Any = one.get("input")
        schema = schema_at(path, model)
        hint = str(schema["description"]) if "description" in schema else None
        message = one["msg"][:1].lower() + one["msg"][1:]
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
            message = f"does not match {context['pattern']}" + (" as a name" if "[key]" in one["loc"] else "")
        if "receivers" in path:
            value = None  # what stands where a secret's name should be may be the secret
        elif isinstance(value, str) and len(value) > _SHOWN:
            value = value[:_SHOWN] + "..."
        yield Problem(path, message, value, (hint or "hint it").rstrip("."))


def _known_keys(path: KeyPath, model: type[BaseModel]) -> str:
    known = list(cast("dict[str, Any]", schema_at(path[:-1], model).get("properties", {})))
    close = nearest(str(path[-1]), known)
    return f"did you mean {close}?" if close else f"use one of {', '.join(known)}"
