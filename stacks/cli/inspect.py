"""`status` and `doctor`: what is, without changing anything."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import typer

from ..operations import stack_operations
from .context import JsonOption, StackOption, load_chosen_stack
from .terminal import console

if TYPE_CHECKING:
    from rich.table import Table

    from ..overview import Overview

__all__ = ["doctor", "print_tables", "status", "table_of"]


def table_of(*columns: str) -> Table:
    """Return an empty table with these columns."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def print_tables(*tables: Table | str) -> None:
    """Print tables and lines, each under the one before."""
    shown = console()
    for table in tables:
        if isinstance(table, str):
            shown.print(table, markup=False)
        else:
            shown.print(table)


def status(stack: StackOption = None, as_json: JsonOption = False) -> None:
    """Show what runs where and how it is; exit code 1 when a service is not well."""
    from ..overview import overview

    loaded = load_chosen_stack(stack)
    view = overview(loaded, stack_operations(loaded))
    if as_json:
        typer.echo(json.dumps(view.as_json(), indent=2))
    else:
        _show(view)
    if any(not service.healthy for service in view.services):
        raise typer.Exit(1)


def _show(view: Overview) -> None:
    if not view.services:
        typer.echo(f"{view.stack} is not up; run `tidemill up`")
        return
    services = table_of("service", "state", "health", "url", "version", "pid", "memory", "uptime", "log")
    for service in view.services:
        services.add_row(
            service.name,
            service.state,
            "well" if service.healthy else service.problem or "ill",
            service.url or "",
            service.version or "",
            str(service.pid or ""),
            "" if service.memory_mb is None else f"{service.memory_mb:.0f} MB",
            _span(service.uptime_seconds),
            service.log,
        )
    parts: list[Table | str] = [f"{view.stack} on {view.target}", services]
    if view.models:
        models = table_of("model", "serves", "data commit", "code commit", "alias")
        for model in view.models:
            serves = f"version {model.version}" if model.ready else model.problem or "nothing"
            models.add_row(
                model.name, serves, (model.lake_commit or "")[:12], (model.git_commit or "")[:12], model.alias or ""
            )
        parts.append(models)
    if not view.running:
        parts.append("stopped; `tidemill start` brings it back")
    print_tables(*parts)


def _span(seconds: float | None) -> str:
    """Return `seconds` as its two largest units.

    >>> _span(3725)
    '1h 2m'
    """
    if seconds is None:
        return ""
    parts: list[str] = []
    rest = int(seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def doctor(as_json: JsonOption = False) -> None:
    """Show where each tool comes from, and what to do about those which cannot be had; exit code 1 then."""
    from ...components.tools.doctor import rows

    tools = rows()
    extras = _missing_extras()
    stuck = [row for row in tools if row.state != "ready" and not row.optional and all(w.obstacle for w in row.ways)]
    if as_json:
        python: dict[str, Any] = {"version": sys.version.split()[0], "executable": sys.executable}
        typer.echo(
            json.dumps({"python": python, "extras": extras, "tools": [row.to_json() for row in tools]}, indent=2)
        )
    else:
        table = table_of("tool", "wanted", "state", "version", "where", "ways to get it")
        notes = [f"target {target}: needs more than is installed; {hint}" for target, hint in extras.items()]
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
    if stuck or extras:
        raise typer.Exit(1)


def _missing_extras() -> dict[str, str]:
    """Return target -> how to get what it imports, for the targets which stacks of this project name."""
    from ...components.layout import find_project
    from ...components.targets.extras import missing
    from ...runtime.common.errors import TidemillError
    from ..loading import load_stack, stack_names

    try:
        project = find_project()
        targets = sorted({load_stack(project, name).config.target for name in stack_names(project)})
    except TidemillError:
        return {}  # without a project, or with a config which `validate` speaks of, nothing is known to be needed
    found = {target: missing(target) for target in targets if target != "local"}
    return {target: hint for target, hint in found.items() if hint}
