"""The servers and the engine: which versions, where they come from, and the cache they are kept in.

    from tidemill.components import tools

    tools.find("prometheus")  # what is there already; ToolError otherwise
    tools.ensure("pulumi", progress=print)  # gets it, which may take minutes the first time

Imports neither Pulumi nor an HTTP client before one is needed.
"""

from __future__ import annotations

import functools
from pathlib import Path

from .base import Package, Program, Progress, Way, WayError
from .toolbox import Toolbox, cache_folder

__all__ = [
    "Package",
    "Program",
    "Progress",
    "Toolbox",
    "Way",
    "WayError",
    "cache_folder",
    "default_toolbox",
    "ensure",
    "find",
]


@functools.cache
def _toolbox(folder: Path) -> Toolbox:
    from .table import PACKAGES

    return Toolbox(PACKAGES, folder)


def default_toolbox() -> Toolbox:
    """Return the toolbox of the pinned table and the user's cache."""
    return _toolbox(cache_folder())


def find(name: str) -> Path:
    """Return the program `name` from PATH, where its version fits, or else from the cache.

    Raises:
        NotFoundError: the table has no such tool.
        ToolError: it is in neither.
    """
    return default_toolbox().find(name)


def ensure(name: str, progress: Progress | None = None) -> Path:
    """Return the program `name`, and get it first where it is not there yet.

    Args:
        name: a tool of the table.
        progress: called with one line of text at a time: what runs and how far it is.

    Raises:
        NotFoundError: the table has no such tool.
        ToolError: it cannot be had; the error says what was tried and what to do.
    """
    return default_toolbox().ensure(name, progress)
