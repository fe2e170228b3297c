"""The parent process of a plugin, the engine: ends the plugin with it, and reads its command."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .base import DELETE_DATA

_EVERY = 0.5


def end_with_parent(parent: int) -> None:
    """End this process soon after the end of `parent`, which started it.

    A killed engine cannot end its plugins, and a remaining provider would create resources next to the next one.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def warn_of_destroy(warn: Callable[[str], None]) -> None:
    """Warn with both options if the engine destroys a stack without permission to delete its data."""
    if not os.environ.get(DELETE_DATA) and "destroy" in _command(os.getppid()):
        warn(
            "This stack holds data, which a plain destroy refuses to delete. `tidemill stop` stops all services and "
            "keeps everything; `tidemill destroy --delete-data` deletes everything."
        )


def _command(pid: int) -> list[str]:
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
        except OSError:
            return []
    import psutil

    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []
