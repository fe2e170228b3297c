"""`destroy`: remove the platform."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ..engine_run import engine_with_progress, print_outcome
from ..options import JsonOption, StackOption, YesOption
from ..progress import summary
from ..selection import load_chosen_stack
from ..terminal import require_confirmation


def destroy(
    stack: StackOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    delete_data: Annotated[
        bool, typer.Option("--delete-data", help="Also delete the data, the models and the keys.")
    ] = False,
) -> None:
    """Remove the platform. Refuses while it holds data, unless --delete-data is given."""
    loaded = load_chosen_stack(stack)
    name = loaded.config.stack
    with engine_with_progress(loaded, as_json=as_json) as (engine, _):
        deployment = engine.deployment()
        if deployment and deployment.protected and not delete_data:
            raise engine.refusal(deployment)
    if not yes:
        require_confirmation(f"Delete {name}{', with its data, models and keys' if delete_data else ''}?")
    began = time.monotonic()
    with engine_with_progress(loaded, as_json=as_json) as (engine, progress):
        outcome = engine.destroy(delete_data=delete_data)
        text = f"{name} is destroyed: {summary(outcome.changes)} ({time.monotonic() - began:.1f} s)"
        print_outcome(outcome, text if outcome.changed else f"{name}: nothing to destroy", loaded, progress)
