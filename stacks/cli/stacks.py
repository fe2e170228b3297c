"""`stacks`: who has what, and whether it is up."""

from __future__ import annotations

import json

import typer

from ...components.layout import find_project
from .context import JsonOption
from .inspect import print_tables, table_of

__all__ = ["stacks"]


def stacks(as_json: JsonOption = False) -> None:
    """List the stacks of all teams with target and state, as the engine's state tells it; nothing is asked or made."""
    from ..teams.listing import list_stacks

    found = list_stacks(find_project())
    if as_json:
        typer.echo(json.dumps([one.as_json() for one in found], indent=2))
        return
    if not found:
        typer.echo("the project has no stack config; write one, see the README")
        return
    table = table_of("stack", "team", "environment", "target", "models", "state", "resources", "config")
    for one in found:
        table.add_row(
            one.name,
            one.team or "",
            one.environment or "",
            one.target or "",
            ", ".join(one.models),
            f"{one.state}: {one.detail}" if one.detail else one.state,
            "" if one.resources is None else str(one.resources),
            "holds" if not one.problems else f"{one.problems} problems",
        )
    ill = sum(1 for one in found if one.problems)
    print_tables(table, *(["`tidemill validate` tells what is wrong in the configs"] if ill else []))
