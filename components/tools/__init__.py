"""The tools that tidemill runs, such as lakeFS, Prometheus and the engine: versions, sources and a cache.

    from tidemill.components import tools

    tools.find("prometheus")  # an installed program; ToolError otherwise
    tools.ensure("pulumi", progress=print)  # installs it if necessary, which may take minutes

Does not import Pulumi, and imports an HTTP client only when one is needed.
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
    """Return the toolbox with the pinned table and the user's cache."""
    return _toolbox(cache_folder())


def find(name: str) -> Path:
    """Return the program `name` from PATH if its version fits, else from the cache.

    Raises:
        NotFoundError: the table has no such tool.
        ToolError: the program is not installed.
    """
    return default_toolbox().find(name)


def ensure(name: str, progress: Progress | None = None) -> Path:
    """Return the program `name`, installing it into the cache if necessary.

    Args:
        name: a tool of the table.
        progress: receives one line of progress at a time.

    Raises:
        NotFoundError: the table has no such tool.
        ToolError: the program cannot be installed; the error says what was tried and what to do.
    """
    return default_toolbox().ensure(name, progress)
