"""`config`: what a stack's config comes to, and where each value came from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, cast

import typer

from . import completion
from .context import JsonOption, StackOption, load_chosen_stack

__all__ = ["config"]

ExplainOption = Annotated[
    str | None,
    typer.Option(
        "--explain", metavar="PATH", help="Say where the value at a path came from, or all below it.",
        show_default=False, autocompletion=completion.paths,
    ),
]  # fmt: skip


def config(explain: ExplainOption = None, stack: StackOption = None, as_json: JsonOption = False) -> None:
    """Print a stack's config with its bases and defaults in it, or say where a value of it came from."""
    from ..stack_config import explanation

    loaded = load_chosen_stack(stack)
    if explain is None:
        whole = explanation.resolved_config(loaded)
        if as_json:
            typer.echo(json.dumps(whole, indent=2))
            return
        origins = {one.path: one.origin for one in explanation.explain(loaded)}
        lines = list(_lines(whole, (), origins))
        width = min(max(len(text) for text, _ in lines), 70)
        for text, origin in lines:
            typer.echo(f"{text:<{width}}  # {origin}" if origin else text)
        return
    found = explanation.explain(loaded, explain)
    if as_json:
        typer.echo(json.dumps([one.as_json() for one in found], indent=2))
        return
    for one in found:
        typer.echo(f"{one.path}: {_text(one.value)}")
        typer.echo(f"  from {one.origin}")
        for origin, value in one.given_way:
            typer.echo(f"  over {origin}: {_text(value)}")
        if len(found) == 1 and one.description:
            typer.echo(f"  {one.description}")


def _text(value: object) -> str:
    from ...templates.formats import FILTERS

    return FILTERS["yaml"](value)


def _lines(value: dict[str, Any], path: tuple[str, ...], origins: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the lines of `value` in YAML, and where each value came from."""
    for key, one in value.items():
        indent = "  " * len(path)
        if isinstance(one, dict) and one:
            yield f"{indent}{_text(key)}:", ""
            yield from _lines(cast("dict[str, Any]", one), (*path, key), origins)
        else:
            yield f"{indent}{_text(key)}: {_text(one)}", origins[".".join((*path, key))]
