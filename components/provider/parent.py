"""The engine which started this provider: whether it lives, and what it was asked to do."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .base import DELETE_DATA

__all__ = ["end_with_parent", "warn_of_destroy"]

_EVERY = 0.5


def end_with_parent(parent: int) -> None:
    """End this process soon after `parent`, which started it, has ended.

    An engine which is killed cannot end its providers, and one left behind would go on creating beside the next.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def warn_of_destroy(warn: Callable[[str], None]) -> None:
    """Where the engine was asked to destroy without the user's word on the data, name both ways."""
    if not os.environ.get(DELETE_DATA) and "destroy" in _command(os.getppid()):
        warn(
            "This stack holds data, which a plain destroy refuses to delete. `tidemill stop` ends every service and "
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
