"""`doctor`: show the external tools and Python packages that are installed or missing."""

from __future__ import annotations

import json
import sys
from typing import Any

import typer

from ..options import JsonOption
from ..terminal import print_tables, table_with


def doctor(as_json: JsonOption = False) -> None:
    """Show the external tools and how to get missing ones. Exit code 1 if one is unavailable."""
    from ....components.tools.doctor import rows

    tools = rows()
    extras = _missing_extras()
    unavailable = [
        row for row in tools if row.state != "ready" and not row.optional and all(w.obstacle for w in row.ways)
    ]
    if as_json:
        python: dict[str, Any] = {"version": sys.version.split()[0], "executable": sys.executable}
        typer.echo(
            json.dumps({"python": python, "extras": extras, "tools": [row.to_json() for row in tools]}, indent=2)
        )
    else:
        table = table_with("tool", "wanted", "state", "version", "where", "ways to get it")
        notes = [f"target {target}: packages are missing; {hint}" for target, hint in extras.items()]
        for row in tools:
            ways = ", ".join(
                way.name + (" (not tried by us)" if not way.tried else "") + (" (not here)" if way.obstacle else "")
                for way in row.ways
            )
            table.add_row(
                row.name,
                row.wanted,
                row.state + (" (optional)" if row.optional and row.state != "ready" else ""),
                row.version or "",
                str(row.path or ""),
                ways,
            )
            notes += [f"{row.name}: {text}" for text in (row.note, row.hint if row.state != "ready" else None) if text]
        print_tables(f"Python {sys.version.split()[0]} at {sys.executable}", table, *notes)
    if unavailable or extras:
        raise typer.Exit(1)


def _missing_extras() -> dict[str, str]:
    """Return target -> how to install its packages, for the targets of this project with missing ones."""
    from ....components.layout import find_project
    from ....components.targets.registry import TARGETS
    from ....runtime.common.errors import TidemillError
    from ...loading import load_stack, stack_names

    try:
        project = find_project()
        targets = sorted({load_stack(project, name).config.target for name in stack_names(project)})
    except TidemillError:
        return {}  # outside a project, or with a config that `validate` refuses, no target is known
    found = {target: TARGETS[target].missing() for target in targets if not TARGETS[target].light_operations}
    return {target: hint for target, hint in found.items() if hint}
