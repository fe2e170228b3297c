"""`config`: print a stack's complete config, and the source of each value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, cast

import typer

from .. import completion
from ..options import JsonOption, StackOption
from ..selection import load_chosen_stack

ExplainOption = Annotated[
    str | None,
    typer.Option(
        "--explain", metavar="PATH", help="Show the source of the value at a path, or of all values below it.",
        show_default=False, autocompletion=completion.config_paths,
    ),
]  # fmt: skip


def config(explain: ExplainOption = None, stack: StackOption = None, as_json: JsonOption = False) -> None:
    """Print a stack's complete config, or the source of a value."""
    from ...stack_config import explanation

    loaded = load_chosen_stack(stack)
    if explain is None:
        complete = explanation.resolved_config(loaded)
        if as_json:
            typer.echo(json.dumps(complete, indent=2))
            return
        origins = {value.path: value.origin for value in explanation.explain(loaded)}
        lines = list(_lines(complete, (), origins))
        width = min(max(len(text) for text, _ in lines), 70)
        for text, origin in lines:
            typer.echo(f"{text:<{width}}  # {origin}" if origin else text)
        return
    found = explanation.explain(loaded, explain)
    if as_json:
        typer.echo(json.dumps([value.as_json() for value in found], indent=2))
        return
    for value in found:
        typer.echo(f"{value.path}: {_yaml(value.value)}")
        typer.echo(f"  from {value.origin}")
        for origin, overridden in value.overridden:
            typer.echo(f"  over {origin}: {_yaml(overridden)}")
        if len(found) == 1 and value.description:
            typer.echo(f"  {value.description}")


def _yaml(value: object) -> str:
    from ....templates.formats import FILTERS

    return FILTERS["yaml"](value)


def _lines(value: dict[str, Any], path: tuple[str, ...], origins: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each line of `value` in YAML with the source of its value."""
    for key, child in value.items():
        indent = "  " * len(path)
        if isinstance(child, dict) and child:
            yield f"{indent}{_yaml(key)}:", ""
            yield from _lines(cast("dict[str, Any]", child), (*path, key), origins)
        else:
            yield f"{indent}{_yaml(key)}: {_yaml(child)}", origins[".".join((*path, key))]
