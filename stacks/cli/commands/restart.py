"""`restart`: restart one service."""

from __future__ import annotations

import typer

from ...operations import deployed_operations
from ..options import ServiceArgument, StackOption
from ..selection import load_chosen_stack, require_service
from ..terminal import waiting


def restart(service: ServiceArgument, stack: StackOption = None) -> None:
    """Stop one service and start it again."""
    operations = deployed_operations(load_chosen_stack(stack))
    require_service(service, (found.name for found in operations.services()))
    with waiting(f"restarting {service}"):
        operations.restart(service)
    typer.echo(f"{service}: restarted")
