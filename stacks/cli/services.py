"""`stop`, `start`, `restart`, `logs`, `open`: the services of a stack that is up, without the engine."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated

import typer

from ...components.targets.operations import Operations
from ...runtime.common.errors import NotFoundError, PlatformError, UserError
from ..loading import LoadedStack, nearest
from ..operations import deployed_operations
from . import completion
from .context import JsonOption, StackOption, load_chosen_stack
from .terminal import waiting

__all__ = ["logs", "open_", "restart", "start", "stop"]

ServiceArgument = Annotated[
    str,
    typer.Argument(help="The service, as `tidemill status` names it.", autocompletion=completion.services),
]
_START_SECONDS = 90.0


def _known(name: str, names: Iterable[str]) -> None:
    known = sorted(names)
    if name not in known:
        close = nearest(name, known)
        hint = f"did you mean {close}?" if close else f"use one of {', '.join(known) or 'none: nothing is up'}"
        raise NotFoundError("no such service", field="service", value=name, hint=hint)


def stop(stack: StackOption = None) -> None:
    """Stop every service; data, models, keys and ports are kept."""
    loaded = load_chosen_stack(stack)
    operations = deployed_operations(loaded)
    with waiting("stopping every service"):
        ran = operations.stop()
    typer.echo(f"{loaded.config.stack}: {ran} services stopped, everything kept; `tidemill start` brings them back")


def start(
    stack: StackOption = None,
    timeout: Annotated[float, typer.Option(help="Seconds until every service must be well.", min=1)] = _START_SECONDS,
) -> None:
    """Start every service that was there, after `stop`, a reboot, or a killed supervisord."""
    loaded = load_chosen_stack(stack)
    operations = deployed_operations(loaded)
    if not operations.services():
        raise UserError("it has no services yet", field=loaded.config.stack, hint="run `tidemill up`")
    with waiting("starting every service"):
        operations.start()
        count = _well(loaded, operations, timeout)
    typer.echo(f"{loaded.config.stack}: {count} services run and are well")


def _well(loaded: LoadedStack, operations: Operations, timeout: float) -> int:
    """Wait until every service is well, and return how many they are."""
    from ..overview import overview

    until = time.monotonic() + timeout
    while True:
        view = overview(loaded, operations)
        ill = [service for service in view.services if not service.healthy]
        if not ill:
            return len(view.services)
        if time.monotonic() > until:
            said = ", ".join(f"{service.name} {service.problem}" for service in ill)
            hint = f"see `tidemill logs {ill[0].name}`, or run `tidemill up`"
            raise PlatformError(f"not well after {timeout:.0f} s: {said}", field=loaded.config.stack, hint=hint)
        time.sleep(0.5)


def restart(service: ServiceArgument, stack: StackOption = None) -> None:
    """Stop one service and start it again."""
    operations = deployed_operations(load_chosen_stack(stack))
    _known(service, (found.name for found in operations.services()))
    with waiting(f"starting {service} again"):
        operations.restart(service)
    typer.echo(f"{service}: started again")


def logs(
    service: ServiceArgument,
    stack: StackOption = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many lines.", min=0)] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows.")] = False,
) -> None:
    """Print the last lines of a service's or job's log."""
    operations = deployed_operations(load_chosen_stack(stack))
    _known(service, operations.logged())
    for line in operations.logs(service, lines, follow=follow):
        typer.echo(line)


def open_(service: ServiceArgument, stack: StackOption = None, as_json: JsonOption = False) -> None:
    """Open a service in the browser, and say who may enter."""
    import json
    import webbrowser

    from ..overview import LOGINS

    operations = deployed_operations(load_chosen_stack(stack))
    _known(service, (found.name for found in operations.services()))
    url = operations.url(service)
    if url is None:
        raise UserError(
            "it has no address which this machine reaches", field="service", value=service, hint="run `tidemill up`"
        )
    user, secret = LOGINS.get(service, (None, None))
    place = operations.secret_place(secret) if secret else None
    file = operations.secret_file(secret) if secret else None
    if as_json:
        login = (
            {"user": user, "password_file": str(file)} if file else {"user": user, "password": place} if place else {}
        )
        typer.echo(json.dumps({"url": url, **login}))
        return
    typer.echo(url)
    if place and user:
        who = f"the user in {operations.secret_place(user)}" if service == "lakefs" else f"user {user}"
        typer.echo(f"enter as {who} with the password in {place}")
    webbrowser.open(url)
