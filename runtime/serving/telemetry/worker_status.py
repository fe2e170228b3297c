"""How the workers of one server share their status: one file each, in a folder that their parent process creates.

The traffic of a worker is kept when it dies, so that sums over the workers never decrease.

    <folder>/worker-<index>-<pid>.json    the latest status of a worker
    <folder>/ended.json                   the summed traffic of ended workers
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from .recent import RecentDocument
from .status_schema import Swap
from .traffic import Traffic

_log = logging.getLogger(__name__)


class ServedVersion(TypedDict):
    """The version that a worker serves."""

    version: str
    alias: str
    engine: str
    lake_commit: str
    git_commit: str


class WorkerStatus(TypedDict):
    """The status of one worker.

    Attributes:
        traffic: its `Traffic.to_json`.
        recent: its `Recent.to_json`.
        requests: answered since its start.
        served: None if it serves no version.
        failed: the version that failed to load, or None.
        missing: whether the registry answers but does not have the alias.
        lost: whether it is missing although a version served or was promoted before.
        reachable: whether the registry answered the last request; None before the first one, and without a registry.
        shadow: the shadow's version, or None.
        waiting_rows: rows waiting for the model.
        swaps: as in `/status`, newest first.
    """

    index: int
    pid: int
    traffic: dict[str, Any]
    recent: RecentDocument
    requests: int
    served: ServedVersion | None
    failed: str | None
    missing: bool
    lost: bool
    reachable: bool | None
    shadow: str | None
    waiting_rows: int
    swaps: list[Swap]


_GAVE_UP = "gave-up.json"


class WorkerStatuses:
    """The statuses of the workers of one server.

    Args:
        folder: holds the files; None for a server with one process.
        index: the number of this worker.
    """

    def __init__(self, folder: Path | None, index: int = 0) -> None:
        self._folder = folder
        self.index = index
        self._own = folder / f"worker-{index}-{os.getpid()}.json" if folder else None

    @property
    def shared(self) -> bool:
        """Whether there can be other workers."""
        return self._folder is not None

    def publish(self, status: WorkerStatus) -> None:
        """Replace the published status of this worker."""
        if self._own is None:
            return
        try:
            _write(self._own, status)
        except OSError as error:
            _log.warning("the worker's status could not be written", extra={"error": str(error)})

    def others(self) -> list[WorkerStatus]:
        """Return the latest statuses of the other workers."""
        if self._folder is None:
            return []
        found = (_read(path) for path in sorted(self._folder.glob("worker-*.json")) if path != self._own)
        return [status for status in found if status is not None]

    def ended_traffic(self) -> dict[str, Any] | None:
        """Return the summed traffic of ended workers, or None."""
        return None if self._folder is None else _read(self._folder / "ended.json")

    def give_up(self, reason: str) -> None:
        """Tell the parent process that the version can never serve."""
        if self._folder is not None:
            _write(self._folder / _GAVE_UP, {"reason": reason})

    def gave_up(self) -> str | None:
        """Return why the version can never serve, if a worker gave up and no other worker serves a version.

        Only the parent process calls it, when a worker has ended.
        """
        if self._folder is None:
            return None
        document = _read(self._folder / _GAVE_UP)
        (self._folder / _GAVE_UP).unlink(missing_ok=True)
        if document is None or any(status["served"] for status in self.others()):
            return None
        return str(document["reason"])

    def retire(self, index: int, pid: int) -> None:
        """Keep the traffic of an ended worker and remove its status. Only the parent process calls it."""
        if self._folder is None:
            return
        path = self._folder / f"worker-{index}-{pid}.json"
        status = _read(path)
        if status is None:
            return
        parts = [status["traffic"]]
        if (ended := self.ended_traffic()) is not None:
            parts.append(ended)
        _write(self._folder / "ended.json", Traffic.summed(parts).to_json())
        path.unlink(missing_ok=True)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _write(path: Path, document: Mapping[str, Any]) -> None:
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(document), encoding="utf-8")
    partial.replace(path)
