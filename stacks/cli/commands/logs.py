"""`logs`: print the log of a service or job."""

from __future__ import annotations

from typing import Annotated

import typer

from ...operations import deployed_operations
from ..options import ServiceArgument, StackOption
from ..selection import load_chosen_stack, require_service


def logs(
    service: ServiceArgument,
    stack: StackOption = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Number of lines.", min=0)] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Also print new lines as they appear.")] = False,
) -> None:
    """Print the last log lines of a service or job."""
    operations = deployed_operations(load_chosen_stack(stack))
    require_service(service, operations.logged())
    for line in operations.logs(service, lines, follow=follow):
        typer.echo(line)
