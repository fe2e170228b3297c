"""`up`, `preview`, `refresh`, `destroy`: the engine at work."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ...runtime.common.errors import UserError
from ..loading import LoadedStack, nearest
from .context import JsonOption, StackOption, YesOption, load_chosen_stack
from .progress import Progress, summary

if TYPE_CHECKING:
    from ..engine.run import Engine, Outcome

__all__ = ["destroy", "preview", "refresh", "up"]

PolicyOption = Annotated[
    bool, typer.Option("--policy", help="Ask the policy pack, and refuse what it refuses; see `tidemill policies`.")
]


@contextmanager
def _working(
    loaded: LoadedStack, *, as_json: bool, future: bool = False, looking: bool = False, policy: bool = False
) -> Generator[tuple[Engine, Progress]]:
    """Give an engine which shows what it does; SIGTERM ends it as carefully as Ctrl-C."""
    from ..engine.run import Engine
    from ..program import stack_program

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with Progress(as_json=as_json, future=future, looking=looking) as progress:
            yield Engine(loaded, stack_program(loaded), listener=progress, policy=policy), progress
    finally:
        signal.signal(signal.SIGTERM, before)


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise UserError("there is nobody to ask", field="--yes", hint="add `--yes`, or run it on a terminal")
    if not typer.confirm(question):
        raise typer.Abort


def _ended(event_changes: Outcome, text: str, loaded: LoadedStack, progress: Progress, **more: object) -> None:
    """Say how the run ended; for programs as the last line of JSON."""
    import json

    changes = {key: count for key, count in event_changes.changes.items() if key not in ("refresh", "read")}
    if progress.as_json:
        typer.echo(json.dumps({"kind": "result", "stack": loaded.config.stack, "changes": changes, **more}))
    else:
        progress.say(text)


def up(
    stack: StackOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not follow until every model serves.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to follow at most.", min=1)] = 900.0,
    recreate: Annotated[
        list[str] | None,
        typer.Option(help="Make this repository, database or store again, empty, when it is gone."),
    ] = None,
    policy: PolicyOption = False,
) -> None:
    """Bring the platform up, or make it what the config says now."""
    from .follow import first_steps, follow

    loaded = load_chosen_stack(stack)
    if not yes:
        _preview_and_ask(loaded, as_json=as_json, policy=policy)
    elif policy:
        # Else what comes before the resource which is refused would have been made.
        with _working(loaded, as_json=as_json, future=True, policy=True) as (engine, _):
            engine.preview()
    began = time.monotonic()
    name = loaded.config.stack
    with _working(loaded, as_json=as_json, policy=policy) as (engine, progress):
        if recreate:
            _check_names(engine, recreate)
        outcome = engine.up(recreate or ())
        took = f"{time.monotonic() - began:.1f} s"
        text = f"{name} is up: {summary(outcome.changes)} ({took})" if outcome.changed else (
            f"nothing changed: {name} is as its config says ({took})"
        )  # fmt: skip
        progress.say(text)
        if not no_wait:
            follow(loaded, progress, timeout)
    with Progress(as_json=as_json) as progress:
        if as_json:
            _ended(outcome, "", loaded, progress)
        elif outcome.changed or not no_wait:
            first_steps(loaded, progress)


def _preview_and_ask(loaded: LoadedStack, *, as_json: bool, policy: bool) -> None:
    if not sys.stdin.isatty():
        _ask("")
    with _working(loaded, as_json=as_json, future=True, policy=policy) as (engine, _):
        planned = engine.preview()
    if planned.changed:
        _ask(f"Do this to {loaded.config.stack}?")


def _check_names(engine: Engine, names: list[str]) -> None:
    deployment = engine.deployment()
    known = deployment.protected if deployment else ()
    for name in names:
        if name not in known:
            close = nearest(name, known)
            hint = f"did you mean {close}?" if close else f"use one of {', '.join(known) or 'none: nothing is up'}"
            raise UserError("nothing of that name holds data", field="--recreate", value=name, hint=hint)


def preview(stack: StackOption = None, as_json: JsonOption = False, policy: PolicyOption = False) -> None:
    """Say what `up` would do."""
    loaded = load_chosen_stack(stack)
    with _working(loaded, as_json=as_json, future=True, policy=policy) as (engine, progress):
        outcome = engine.preview()
        said = summary(outcome.changes)
        text = f"{loaded.config.stack}, if `tidemill up` is run: {said}" if said else (
            f"nothing would change: {loaded.config.stack} is as its config says"
        )  # fmt: skip
        _ended(outcome, text, loaded, progress)


def refresh(stack: StackOption = None, as_json: JsonOption = False) -> None:
    """Look at what is really there and keep it in the state; changes nothing of the platform."""
    loaded = load_chosen_stack(stack)
    with _working(loaded, as_json=as_json, looking=True) as (engine, progress):
        outcome = engine.refresh()
        text = "all is as it was made"
        if outcome.changed:
            text = f"{outcome.changed} differ from what was made; `tidemill up` fixes them"
        _ended(outcome, f"{loaded.config.stack}: {text}", loaded, progress)


def destroy(
    stack: StackOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    delete_data: Annotated[
        bool, typer.Option("--delete-data", help="Delete the data, the models and the keys too.")
    ] = False,
) -> None:
    """Remove the platform; refuses while it holds data, unless told to delete that too."""
    loaded = load_chosen_stack(stack)
    name = loaded.config.stack
    with _working(loaded, as_json=as_json) as (engine, _):
        deployment = engine.deployment()
        if deployment and deployment.protected and not delete_data:
            raise engine.refusal(deployment)
    if not yes:
        what = "everything, its data, models and keys included" if delete_data else "everything"
        _ask(f"Delete {what}, of {name}?")
    began = time.monotonic()
    with _working(loaded, as_json=as_json) as (engine, progress):
        outcome = engine.destroy(delete_data=delete_data)
        text = f"{name} is gone: {summary(outcome.changes)} ({time.monotonic() - began:.1f} s)"
        _ended(outcome, text if outcome.changed else f"{name}: nothing was there", loaded, progress)
