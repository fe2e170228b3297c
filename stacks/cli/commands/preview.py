"""`preview`: show what `up` would change."""

from __future__ import annotations

from ..engine_run import PolicyOption, engine_with_progress, print_outcome
from ..options import JsonOption, StackOption
from ..progress import summary
from ..selection import load_chosen_stack


def preview(stack: StackOption = None, as_json: JsonOption = False, policy: PolicyOption = False) -> None:
    """Show what `up` would change."""
    loaded = load_chosen_stack(stack)
    name = loaded.config.stack
    with engine_with_progress(loaded, as_json=as_json, mode="preview", policy=policy) as (engine, progress):
        outcome = engine.preview()
        counts = summary(outcome.changes)
        text = f"{name}: `tidemill up` would do this: {counts}" if counts else f"no changes: {name} matches its config"
        print_outcome(outcome, text, loaded, progress)
