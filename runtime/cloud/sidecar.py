"""Mirrors the folders of a task to S3 until shortly after the service ends.

ECS stops a container only after the containers that depend on it. So when the sidecar gets SIGTERM, the service has
ended, and its last writes are in the folder.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from .folder_mirror import Fetch, Keep, Send
from .task_files import TaskFiles, place_of

EVERY = 5.0
"""Seconds between sweeps: how much written data a task loses at most when its machine fails."""

_LAST_SECONDS = 100.0
"""ECS waits no longer than 120 seconds."""

_log = logging.getLogger(__name__)
Folders = dict[str, Keep | Send | Fetch]
_KINDS: dict[str, type[Keep] | type[Send] | type[Fetch]] = {"keep": Keep, "send": Send, "fetch": Fetch}


def mirrors(s3: Any, files: TaskFiles, data: Path, *, owner: int | None = None) -> Folders:
    """Return name -> mirror for each store of the task; the folders are below `data`."""
    return {
        name: _KINDS[store.use](s3, place_of(store.uri), data / name, owner) for name, store in files.stores.items()
    }


def restore(folders: Folders) -> None:
    """Restore each folder."""
    for name, mirror in folders.items():
        _log.info("restored a folder", extra={"store": name, "files": mirror.restore()})


def keep(
    folders: Folders,
    stop: threading.Event,
    *,
    every: float = EVERY,
    last: float = _LAST_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Sweep `folders` until `stop` is set, then once more; return whether everything was uploaded.

    Failures of S3 are retried, at the end for `last` seconds.

    Args:
        folders: name -> mirror.
        stop: set when the task stops.
        every: seconds between sweeps.
        last: time limit of the final sweep in seconds.
        clock: returns seconds.
    """
    started: set[str] = set()
    while not stop.is_set():
        for name, mirror in folders.items():
            _sweep(name, mirror, started)
        stop.wait(every)
    until = clock() + last
    pending = {name: mirror for name, mirror in folders.items() if not isinstance(mirror, Fetch)}
    while pending:
        pending = {name: mirror for name, mirror in pending.items() if not _sweep(name, mirror, started, final=True)}
        if pending and clock() > until:
            _log.error("cannot upload the last changes", extra={"stores": sorted(pending)})
            return False
        if pending:
            time.sleep(min(1.0, every))
    return True


def _sweep(name: str, mirror: Keep | Send | Fetch, started: set[str], *, final: bool = False) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        if name not in started:
            mirror.start()
            started.add(name)
        if final and isinstance(mirror, Send):
            mirror.finish()
        else:
            mirror.sweep()
    except (BotoCoreError, ClientError, OSError) as error:
        _log.warning("cannot mirror a folder; retrying", extra={"store": name, "error": str(error)})
        return False
    return True


def stopping() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = threading.Event()

    def end(_: int, __: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    return stop
