"""`up`: create or update the platform, then wait until its models serve."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from ....runtime.common.errors import UserError
from ...loading import nearest
from ..engine_run import PolicyOption, engine_with_progress, print_outcome
from ..first_steps import print_first_steps, wait_until_serving
from ..options import JsonOption, StackOption, YesOption
from ..progress import Progress, summary
from ..selection import load_chosen_stack
from ..terminal import require_confirmation, require_terminal

if TYPE_CHECKING:
    from ...engine.run import Engine


def up(
    stack: StackOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until every model serves.")] = False,
    timeout: Annotated[float, typer.Option(help="Longest wait for the models, in seconds.", min=1)] = 900.0,
    recreate: Annotated[
        list[str] | None,
        typer.Option(help="Name of a lost repository, database or store to create again, empty; can be repeated."),
    ] = None,
    policy: PolicyOption = False,
) -> None:
    """Create the platform, or update it to match the config."""
    loaded = load_chosen_stack(stack)
    name = loaded.config.stack
    if not yes:
        require_terminal()
    if not yes or policy:  # without a preview, resources before one that the policy pack refuses would be created
        with engine_with_progress(loaded, as_json=as_json, mode="preview", policy=policy) as (engine, _):
            planned = engine.preview()
        if planned.changed and not yes:
            require_confirmation(f"Apply these changes to {name}?")
    began = time.monotonic()
    with engine_with_progress(loaded, as_json=as_json, policy=policy) as (engine, progress):
        if recreate:
            _check_names(engine, recreate)
        outcome = engine.up(recreate or ())
        took = f"{time.monotonic() - began:.1f} s"
        progress.say(
            f"{name} is up: {summary(outcome.changes)} ({took})"
            if outcome.changed
            else f"no changes: {name} matches its config ({took})"
        )
        if not no_wait:
            wait_until_serving(loaded, progress, timeout)
    with Progress(as_json=as_json) as progress:
        if as_json:
            print_outcome(outcome, "", loaded, progress)
        elif outcome.changed or not no_wait:
            print_first_steps(loaded, progress)


def _check_names(engine: Engine, names: list[str]) -> None:
    deployment = engine.deployment()
    known = deployment.protected if deployment else ()
    for name in names:
        if name not in known:
            close = nearest(name, known)
            hint = f"did you mean {close}?" if close else f"use one of {', '.join(known) or 'none: nothing is up'}"
            raise UserError("no resource with data has this name", field="--recreate", value=name, hint=hint)
