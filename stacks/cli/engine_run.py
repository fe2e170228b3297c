"""Runs the engine for `up`, `preview`, `refresh` and `destroy`, shows its progress, and prints the result."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ..loading import LoadedStack
from .progress import Mode, Progress
from .terminal import interruptible

if TYPE_CHECKING:
    from ..engine.run import Engine, Outcome

PolicyOption = Annotated[
    bool, typer.Option("--policy", help="Check the resources with the policy pack first; see `tidemill policies`.")
]


@contextmanager
def engine_with_progress(
    loaded: LoadedStack, *, as_json: bool, mode: Mode = "run", policy: bool = False
) -> Generator[tuple[Engine, Progress]]:
    """Provide an engine that shows its progress; SIGTERM stops it as carefully as Ctrl-C."""
    from ..engine.run import Engine
    from ..program import stack_program

    with interruptible(), Progress(as_json=as_json, mode=mode) as progress:
        yield Engine(loaded, stack_program(loaded), listener=progress, policy=policy), progress


def print_outcome(outcome: Outcome, text: str, loaded: LoadedStack, progress: Progress) -> None:
    """Print how the run ended: `text`, or with `--json` the counts."""
    changes = {key: count for key, count in outcome.changes.items() if key not in ("refresh", "read")}
    if progress.as_json:
        typer.echo(json.dumps({"kind": "result", "stack": loaded.config.stack, "changes": changes}))
    else:
        progress.say(text)
