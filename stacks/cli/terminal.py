"""Writes to terminals: colours, tables, lines that change in place, questions, interrupts.

Only a terminal gets colours and changing lines. NO_COLOR (https://no-color.org) and a TERM without such abilities turn
them off. Rich implements FORCE_COLOR.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TextIO

import typer

from ...runtime.common.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_PIPE_WIDTH = 200
_REFRESH_SECONDS = 0.1


def is_live(stream: TextIO) -> bool:
    """Return whether `stream` is a terminal that can change a written line."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


def console(*, stderr: bool = False) -> Console:
    """Return a console for standard output or error, without styles where colours are turned off."""
    from rich.console import Console

    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") in ("dumb", "unknown")
    made = Console(stderr=stderr, highlight=False, color_system=None if plain else "auto")
    if not made.is_terminal:
        made.width = _PIPE_WIDTH  # Rich would cut tables at 80 characters in a pipe
    return made


def table_with(*columns: str) -> Table:
    """Return an empty table with `columns`."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def print_tables(*parts: Table | str) -> None:
    """Print tables and lines of text, one below the other."""
    shown = console()
    for part in parts:
        if isinstance(part, str):
            shown.print(part, markup=False)
        else:
            shown.print(part)


@contextmanager
def waiting(text: str) -> Generator[None]:
    """Show `text` with a spinner on standard error during the block; show nothing where that is no terminal."""
    if not is_live(sys.stderr):
        yield
        return
    with console(stderr=True).status(text):
        yield


class StatusLine:
    """One line on standard error that changes in place; shows nothing where that is no terminal, or if `quiet`."""

    def __init__(self, *, quiet: bool) -> None:
        self.live = is_live(sys.stderr) and not quiet
        self._shown_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, text: str, *, force: bool = False) -> None:
        """Show `text` instead of the earlier one, ten times a second at most unless `force` is set."""
        now = time.monotonic()
        if self.live and (force or now - self._shown_at >= _REFRESH_SECONDS):
            self._shown_at = now
            self._write(text)

    def clear(self) -> None:
        """Remove the line."""
        if self._shown_at:
            self._write("")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


@contextmanager
def interruptible(*signals: int) -> Generator[None]:
    """Treat SIGTERM (or `signals`) like Ctrl-C during the block, so that it cleans up."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = [(number, signal.signal(number, interrupt)) for number in signals or (signal.SIGTERM,)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def require_confirmation(question: str) -> None:
    """Ask `question`, and abort unless the answer is yes.

    Raises:
        UserError: standard input is no terminal.
    """
    require_terminal()
    if not typer.confirm(question):
        raise typer.Abort


def require_terminal(field: str = "--yes", hint: str = "add `--yes`, or run it on a terminal") -> None:
    """Check that standard input is a terminal, before a question.

    Raises:
        UserError: it is not; with `field` and `hint`.
    """
    if not sys.stdin.isatty():
        raise UserError("cannot ask: standard input is not a terminal", field=field, hint=hint)
