"""Locks of runs: tidemill's own, against concurrent runs, and those that a killed engine leaves.

A lock of the engine is removed only if it names this host and a dead process.
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

_LOCK = re.compile(
    r"^\s*(?P<where>\S+): created by (?P<user>\S+)@(?P<host>\S+) \(pid (?P<pid>\d+)\) at (?P<at>\S+)", re.MULTILINE
)
_ORPHAN_SECONDS = 60.0


@dataclass(frozen=True)
class EngineLock:
    """A lock in a message of the engine."""

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
        """Return the process that holds the lock, or None if it is dead."""
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            # A process younger than the lock only has the same number.
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
        """The lock file, on a file backend."""
        parts = urlsplit(self.where)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None


def parse_locks(text: str) -> list[EngineLock]:
    """Return the locks in a message of the engine."""
    return [
        EngineLock(match["where"], match["user"], match["host"], int(match["pid"]), match["at"])
        for match in _LOCK.finditer(text)
    ]


@contextmanager
def run_lock(folder: Path, stack: str) -> Generator[Path]:
    """Hold tidemill's lock on `stack`; the operating system releases it when the process ends.

    Raises:
        PlatformError: another run holds the lock.
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
                hint="wait for its end, then run this again",
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield path


def clear_dead_locks(message: str, stack: str, cancel: Callable[[], None], note: Callable[[str], None]) -> None:
    """Remove the locks in `message`, if each names this host and a dead process.

    Args:
        message: the engine's message.
        stack: the locked stack.
        cancel: removes all locks of the stack, for backends that are not folders.
        note: receives a message about removed locks.

    Raises:
        PlatformError: a lock belongs to another host, or its process lives.
    """
    locks = parse_locks(message)
    if not locks:
        raise PlatformError(
            "another update is in progress", field=stack, hint="wait for its end, or run `pulumi cancel`"
        )
    for lock in locks:
        if not lock.here:
            raise PlatformError(
                f"locked by {lock.user} on the host {lock.host} (pid {lock.pid}, since {lock.at})",
                field=stack,
                hint="wait for the end of that run; run `pulumi cancel` only if it is certainly dead",
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
        # Only this file: `cancel` would also remove a lock that another run has taken in the meantime.
        for path in (file, file.with_name(f"{file.name}.attrs")):
            path.unlink(missing_ok=True)
    pids = ", ".join(str(lock.pid) for lock in locks)
    note(f"removed the lock of an earlier run on this host that did not release it (pid {pids} is dead)")


def _end_orphan(lock: EngineLock, process: psutil.Process, stack: str, note: Callable[[str], None]) -> None:
    """End an engine whose `tidemill` was killed, but no other process."""
    busy = PlatformError(
        f"another update is in progress on this host (pid {lock.pid}, since {lock.at})",
        field=stack,
        hint="wait for its end, then run this again",
    )
    try:
        if not _orphaned(process):
            raise busy
        note(f"asking the engine of a killed run to finish (pid {lock.pid})")
        process.send_signal(signal.SIGINT)
        process.wait(_ORPHAN_SECONDS)
    except psutil.TimeoutExpired:
        raise busy from None
    except psutil.NoSuchProcess:
        return


def _orphaned(process: psutil.Process) -> bool:
    """Return whether `process` is an engine of tidemill without the process that runs its program."""
    client = next((word for word in process.cmdline() if word.startswith("--client=127.0.0.1:")), None)
    if client is None:
        return False
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", int(client.rsplit(":", 1)[1]))) != 0
