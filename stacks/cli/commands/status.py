"""`status`: show the services and models of a stack."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from ...operations import stack_operations
from ..options import JsonOption, StackOption
from ..selection import load_chosen_stack
from ..terminal import print_tables, table_with

if TYPE_CHECKING:
    from rich.table import Table

    from ...overview import Overview, ServiceView


def status(stack: StackOption = None, as_json: JsonOption = False) -> None:
    """Show the health and address of all services. Exit code 1 if one is unhealthy."""
    from ...overview import overview

    loaded = load_chosen_stack(stack)
    view = overview(loaded, stack_operations(loaded))
    if as_json:
        typer.echo(json.dumps(view.as_json(), indent=2))
    else:
        _print_view(view)
    if any(not service.healthy for service in view.services):
        raise typer.Exit(1)


def _print_view(view: Overview) -> None:
    if not view.services:
        typer.echo(f"{view.stack} is not up; run `tidemill up`")
        return
    services = table_with("service", "state", "health", "url", "version", "pid", "memory", "uptime", "log")
    for service in view.services:
        services.add_row(
            service.name,
            service.state,
            _health(service),
            service.url or "",
            service.version or "",
            str(service.pid or ""),
            "" if service.memory_mb is None else f"{service.memory_mb:.0f} MB",
            _duration(service.uptime_seconds),
            service.log,
        )
    parts: list[Table | str] = [f"{view.stack} on {view.target}", services]
    if view.models:
        models = table_with("model", "serving", "data commit", "code commit", "alias")
        for model in view.models:
            serving = f"version {model.version}" if model.ready else model.problem or "nothing"
            if model.degraded:
                serving = f"{serving} (degraded: {model.problem})"
            data, code = (model.lake_commit or "")[:12], (model.git_commit or "")[:12]
            models.add_row(model.name, serving, data, code, model.alias or "")
        parts.append(models)
        parts += [f"{model.name}: trusts {kind} (serve.trust)" for model in view.models for kind in model.trust]
        parts += [f"{model.name}: {note}" for model in view.models for note in model.notes]
    parts += [str(commit) for commit in view.unvalidated]
    if not view.running:
        parts.append("stopped; `tidemill start` starts it again")
    print_tables(*parts)


def _health(service: ServiceView) -> str:
    if service.degraded:
        return f"degraded: {service.problem}"
    return "healthy" if service.healthy else service.problem or "unhealthy"


def _duration(seconds: float | None) -> str:
    """Format a duration with its two largest units.

    >>> _duration(3725)
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
