"""`start`: start the services of a stack."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ....components.targets.operations import Operations
from ....runtime.common.errors import PlatformError, UserError
from ...loading import LoadedStack
from ...operations import deployed_operations
from ..options import StackOption
from ..selection import load_chosen_stack
from ..terminal import waiting

if TYPE_CHECKING:
    from ...overview import ServiceView

_POLL_SECONDS = 0.5


def start(
    stack: StackOption = None,
    timeout: Annotated[
        float, typer.Option(help="Longest wait until all services are healthy, in seconds.", min=1)
    ] = 90.0,
) -> None:
    """Start all services again. Use it after `stop`, a reboot, or a killed supervisord."""
    loaded = load_chosen_stack(stack)
    operations = deployed_operations(loaded)
    if not operations.services():
        raise UserError("the stack has no services yet", field=loaded.config.stack, hint="run `tidemill up`")
    with waiting("starting all services"):
        operations.start()
        services = _wait_until_healthy(loaded, operations, timeout)
    without = [service.name for service in services if service.awaits_first_version]
    text = f"{len(services) - len(without)} services are healthy"
    typer.echo(f"{loaded.config.stack}: {text}{''.join(f'; {name} awaits its first version' for name in without)}")


def _wait_until_healthy(loaded: LoadedStack, operations: Operations, timeout: float) -> Sequence[ServiceView]:
    """Wait until all services are healthy, and return them."""
    from ...overview import overview

    deadline = time.monotonic() + timeout
    while True:
        view = overview(loaded, operations)
        # A model without a first version is no failure of the start.
        unhealthy = [each for each in view.services if not each.healthy and not each.awaits_first_version]
        if not unhealthy:
            return view.services
        if time.monotonic() > deadline:
            problems = ", ".join(f"{service.name} {service.problem}" for service in unhealthy)
            hint = f"see `tidemill logs {unhealthy[0].name}`, or run `tidemill up`"
            raise PlatformError(f"not healthy after {timeout:.0f} s: {problems}", field=loaded.config.stack, hint=hint)
        time.sleep(_POLL_SECONDS)
