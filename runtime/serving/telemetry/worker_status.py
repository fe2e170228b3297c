"""Where the workers of one server tell one another how they are: a file each in a folder that their parent made.

A worker's last word is kept when it dies, so that sums over workers never go back.

    <folder>/worker-<index>-<pid>.json    what a worker said last
    <folder>/ended.json                   the added-up traffic of workers which ended
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from .traffic import Traffic

__all__ = ["Board"]

_log = logging.getLogger(__name__)


class Board:
    """The notices of the workers.

    Args:
        folder: where they hang; None for a server of one process, which has nobody to tell.
        index: the position of this worker among them.
    """

    def __init__(self, folder: Path | None, index: int = 0) -> None:
        self._folder = folder
        self.index = index
        self._own = folder / f"worker-{index}-{os.getpid()}.json" if folder else None

    @property
    def shared(self) -> bool:
        """Whether there may be others."""
        return self._folder is not None

    def say(self, notice: dict[str, Any]) -> None:
        """Hang up `notice` in place of this worker's last one."""
        if self._own is None:
            return
        try:
            _write(self._own, notice)
        except OSError as error:
            _log.warning("the other workers cannot be told", extra={"error": str(error)})

    def others(self) -> list[dict[str, Any]]:
        """Return what the other workers said last."""
        if self._folder is None:
            return []
        found = (_read(path) for path in sorted(self._folder.glob("worker-*.json")) if path != self._own)
        return [notice for notice in found if notice is not None]

    def ended(self) -> dict[str, Any] | None:
        """Return the traffic of the workers which ended, or None."""
        return None if self._folder is None else _read(self._folder / "ended.json")

    def bury(self, index: int, pid: int) -> None:
        """Keep the traffic of a worker which ended, and take its notice down. For the parent alone."""
        if self._folder is None:
            return
        path = self._folder / f"worker-{index}-{pid}.json"
        last = _read(path)
        if last is None:
            return
        parts = [last["traffic"]]
        if (before := self.ended()) is not None:
            parts.append(before)
        _write(self._folder / "ended.json", Traffic.summed(parts).to_json())
        path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _write(path: Path, notice: dict[str, Any]) -> None:
    work = path.with_suffix(f".{os.getpid()}.partial")
    work.write_text(json.dumps(notice), encoding="utf-8")
    work.replace(path)
