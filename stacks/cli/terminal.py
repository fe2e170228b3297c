"""What the terminal at the other end can show: colours, lines which change in place, or neither.

Colours and moving lines go to terminals alone. NO_COLOR (https://no-color.org) and a TERM which names no terminal are
respected; FORCE_COLOR is the user's own word for the contrary, and Rich's matter.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console", "lively", "waiting"]

_WIDE = 200


def lively(stream: TextIO) -> bool:
    """Say whether what was written to `stream` can be changed: whether it is a terminal, and one that can."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


def console(*, stderr: bool = False) -> Console:
    """Return a console of standard output or error, without any style where colours are not wanted."""
    from rich.console import Console

    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") in ("dumb", "unknown")
    made = Console(stderr=stderr, highlight=False, color_system=None if plain else "auto")
    if not made.is_terminal:
        made.width = _WIDE  # a pipe has no width; a table cut at 80 characters would lose what is asked for
    return made


@contextmanager
def waiting(text: str) -> Generator[None]:
    """Show on a terminal, on standard error, that `text` is under way; elsewhere show nothing."""
    if not lively(sys.stderr):
        yield
        return
    with console(stderr=True).status(text):
        yield
