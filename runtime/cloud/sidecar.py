"""Keeps the folders of a task in S3, as long as the task runs and a little longer.

ECS ends a container only after those which depend on it have ended, so that at its own SIGTERM the service is gone,
and what it wrote last is in the folder.
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

__all__ = ["EVERY", "Folders", "keep", "mirrors", "restore", "stopping"]

EVERY = 5.0
"""Seconds between two looks: what a task loses at most when its machine dies, besides what was never written."""

_LAST_SECONDS = 100.0
"""ECS waits no longer than 120 seconds."""

_log = logging.getLogger(__name__)
Folders = dict[str, Keep | Send | Fetch]
_KINDS: dict[str, type[Keep] | type[Send] | type[Fetch]] = {"keep": Keep, "send": Send, "fetch": Fetch}


def mirrors(s3: Any, files: TaskFiles, data: Path, *, owner: int | None = None) -> Folders:
    """Return name -> mirror of each store of the task, whose folders are below `data`."""
    return {name: _KINDS[kept.use](s3, place_of(kept.uri), data / name, owner) for name, kept in files.stores.items()}


def restore(folders: Folders) -> None:
    """Fetch what each folder held."""
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
    """Keep `folders` until `stop`, then once more; return whether all is kept.

    S3 not answering ends nothing: it is asked again, at the end for `last` seconds.
    """
    started: set[str] = set()
    while not stop.is_set():
        for name, mirror in folders.items():
            _try(name, mirror, started)
        stop.wait(every)
    until = clock() + last
    left = {name: mirror for name, mirror in folders.items() if not isinstance(mirror, Fetch)}
    while left:
        left = {name: mirror for name, mirror in left.items() if not _try(name, mirror, started, final=True)}
        if left and clock() > until:
            _log.error("what was written last could not be kept", extra={"stores": sorted(left)})
            return False
        if left:
            time.sleep(min(1.0, every))
    return True


def _try(name: str, mirror: Keep | Send | Fetch, started: set[str], *, final: bool = False) -> bool:
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
        _log.warning("a folder could not be kept", extra={"store": name, "error": str(error)})
        return False
    return True


def stopping() -> threading.Event:
    """Return what is set at SIGTERM and SIGINT."""
    stop = threading.Event()

    def end(_: int, __: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    return stop
