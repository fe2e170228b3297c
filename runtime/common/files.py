"""Files that a process owns while it lives, and durable folders.

Several writers share one folder. Each holds a lock (`flock`) on every unfinished file, and the kernel releases it when
the process ends. So an unfinished file that another process can lock was left by a dead writer.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path

__all__ = ["create_locked", "left_behind", "sync", "waiting_lock", "write_durably"]


def create_locked(path: Path) -> int:
    """Create the file `path`, 0600, and return a descriptor that holds its lock until it is closed.

    Raises:
        OSError: the file exists or cannot be created, or another process removed it before it was locked.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another process may have removed it before it was locked.
        if os.fstat(descriptor).st_nlink == 0:
            raise FileNotFoundError(f"{path} was removed while it was created")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def left_behind(path: Path) -> Generator[int | None]:
    """Lock the file `path` and yield its descriptor; yield None if it is gone or a living process holds it."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            # The previous holder may have deleted it.
            yield descriptor if os.fstat(descriptor).st_nlink else None
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def waiting_lock(path: Path) -> Generator[None]:
    """Wait for the lock of the file `path`, which is created if missing, and hold it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync(folder: Path) -> None:
    """Make created, renamed and deleted names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes) -> None:
    """Replace the file `path`, 0600, atomically; the content is on disk when this returns."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    sync(path.parent)
