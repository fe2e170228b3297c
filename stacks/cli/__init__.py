"""The command line `tidemill`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit: 0 done, 1 the answer is no, 2 the user's mistake, 3 the platform failed."""
    from .app import run

    sys.exit(run())
