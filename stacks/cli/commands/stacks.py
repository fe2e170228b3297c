"""`stacks`: list the stacks of the project."""

from __future__ import annotations

import json

import typer

from ....components.layout import find_project
from ..options import JsonOption
from ..terminal import print_tables, table_with


def stacks(as_json: JsonOption = False) -> None:
    """List the stacks of all teams with target and state. Reads only files and the engine's state."""
    from ...teams.listing import list_stacks

    found = list_stacks(find_project())
    if as_json:
        typer.echo(json.dumps([stack.as_json() for stack in found], indent=2))
        return
    if not found:
        typer.echo("the project has no stack config; write one, see the README")
        return
    table = table_with("stack", "team", "environment", "target", "models", "state", "resources", "config")
    for stack in found:
        table.add_row(
            stack.name,
            stack.team or "",
            stack.environment or "",
            stack.target or "",
            ", ".join(stack.models),
            f"{stack.state}: {stack.detail}" if stack.detail else stack.state,
            "" if stack.resources is None else str(stack.resources),
            f"{stack.problems} problems" if stack.problems else "valid",
        )
    invalid = any(stack.problems for stack in found)
    print_tables(table, *(["`tidemill validate` shows the problems in the configs"] if invalid else []))
