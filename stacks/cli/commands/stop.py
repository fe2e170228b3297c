"""`stop`: stop the services of a stack."""

from __future__ import annotations

import typer

from ...operations import deployed_operations
from ..options import StackOption
from ..selection import load_chosen_stack
from ..terminal import waiting


def stop(stack: StackOption = None) -> None:
    """Stop all services; keeps data, models, keys and ports."""
    loaded = load_chosen_stack(stack)
    operations = deployed_operations(loaded)
    with waiting("stopping all services"):
        count = operations.stop()
    typer.echo(f"{loaded.config.stack}: {count} services stopped; `tidemill start` starts them again")
