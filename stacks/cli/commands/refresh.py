"""`refresh`: update the engine's state from the running platform."""

from __future__ import annotations

from ..engine_run import engine_with_progress, print_outcome
from ..options import JsonOption, StackOption
from ..selection import load_chosen_stack


def refresh(stack: StackOption = None, as_json: JsonOption = False) -> None:
    """Update the state to match what actually exists. Changes nothing in the platform."""
    loaded = load_chosen_stack(stack)
    with engine_with_progress(loaded, as_json=as_json, mode="refresh") as (engine, progress):
        outcome = engine.refresh()
        text = "everything matches the state"
        if outcome.changed:
            text = f"{outcome.changed} resources differ from the state; `tidemill up` repairs them"
        print_outcome(outcome, f"{loaded.config.stack}: {text}", loaded, progress)
