"""The command line `tidemill`. Each command is a module of `commands/`; `app.py` says how to add one."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit: 0 success, 1 negative result, 2 user error, 3 platform failure."""
    from .app import run

    sys.exit(run())
