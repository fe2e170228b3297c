"""Locks: ours, so that two runs never race, and the engine's, which a killed engine leaves behind.

A lock of the engine's is removed only when it names this host and a process which is dead.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psutil

from ...runtime.common.errors import PlatformError
from .environment import private_folder

__all__ = ["EngineLock", "clear_dead_locks", "parse_locks", "run_lock"]

_LOCK = re.compile(
    r"^\s*(?P<where>\S+): created by (?P<user>\S+)@(?P<host>\S+) \(pid (?P<pid>\d+)\) at (?P<at>\S+)",
    re.MULTILINE,
)
_ORPHAN_SECONDS = 60.0


@dataclass(frozen=True)
class EngineLock:
    """One lock as the engine tells of it."""

    where: str
    user: str
    host: str
    pid: int
    at: str

    @property
    def here(self) -> bool:
        """Whether it names this host."""
        return self.host == socket.gethostname()

    def process(self) -> psutil.Process | None:
        """Return the process which holds it, or None when that one is dead."""
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            # A process younger than the lock has merely got the same number.
            return None if process.create_time() > self._timestamp() + 2 else process
        except psutil.NoSuchProcess:
            return None

    def _timestamp(self) -> float:
        try:
            return datetime.fromisoformat(self.at).astimezone(UTC).timestamp()
        except ValueError:
            return time.time()

    @property
    def file(self) -> Path | None:
        """The file which is the lock, on a file backend."""
        parts = urlsplit(self.where)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None


def parse_locks(text: str) -> list[EngineLock]:
    """Return the locks which the engine's message `text` names."""
    return [
        EngineLock(match["where"], match["user"], match["host"], int(match["pid"]), match["at"])
        for match in _LOCK.finditer(text)
    ]


@contextmanager
def run_lock(folder: Path, stack: str) -> Generator[Path]:
    """Hold our own lock on `stack`: it ends with the process, however that ends.

    Raises:
        PlatformError: another run holds it.
    """
    path = private_folder(folder / "locks") / stack
    with path.open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise PlatformError(
                f"another tidemill run is in progress (pid {file.read().strip() or 'unknown'})",
                field=stack,
                hint="wait until it has ended, then run this again",
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield path


def clear_dead_locks(message: str, stack: str, cancel: Callable[[], None], note: Callable[[str], None]) -> None:
    """Remove the locks which `message` names, if each names this host and a dead process.

    Args:
        message: what the engine said.
        stack: the locked stack.
        cancel: removes all locks of the stack, for backends which are not files.
        note: is told what happened.

    Raises:
        PlatformError: a lock is of another host, or its process lives.
    """
    locks = parse_locks(message)
    if not locks:
        raise PlatformError(
            "another update is in progress", field=stack, hint="wait until it has ended, or run `pulumi cancel`"
        )
    for lock in locks:
        if not lock.here:
            raise PlatformError(
                f"locked by {lock.user} on the host {lock.host} (pid {lock.pid}, since {lock.at})",
                field=stack,
                hint="wait until that run has ended; only if it is surely dead, run `pulumi cancel`",
            )
    for lock in locks:
        process = lock.process()
        if process is not None:
            _end_orphan(lock, process, stack, note)
    for lock in locks:
        file = lock.file
        if file is None:
            cancel()
            break
        # Exactly this file, since `cancel` would also remove a lock taken by somebody in the meantime.
        for path in (file, file.with_name(f"{file.name}.attrs")):
            path.unlink(missing_ok=True)
    pids = ", ".join(str(lock.pid) for lock in locks)
    note(f"an earlier run on this host ended without freeing its lock (pid {pids} is dead): the lock was removed")


def _end_orphan(lock: EngineLock, process: psutil.Process, stack: str, note: Callable[[str], None]) -> None:
    """End an engine whose `tidemill` was killed; leave every other process alone."""
    busy = PlatformError(
        f"another update is in progress on this host (pid {lock.pid}, since {lock.at})",
        field=stack,
        hint="wait until it has ended, then run this again",
    )
    try:
        if not _orphaned(process):
            raise busy
        note(f"an engine is left over from a run which was killed (pid {lock.pid}): it is asked to finish")
        process.send_signal(signal.SIGINT)
        process.wait(_ORPHAN_SECONDS)
    except psutil.TimeoutExpired:
        raise busy from None
    except psutil.NoSuchProcess:
        return


def _orphaned(process: psutil.Process) -> bool:
    """Say whether `process` is an engine of ours which has nobody left to run its program."""
    client = next((word for word in process.cmdline() if word.startswith("--client=127.0.0.1:")), None)
    if client is None:
        return False
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", int(client.rsplit(":", 1)[1]))) != 0
