"""Files which belong to a process while it lives, and to nobody afterwards.

Several writers share one folder. Each holds a lock (`flock`) on every file which it has not finished; the kernel drops
the lock when the process ends, however it ends. So what can be locked by another was left by a dead one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path

__all__ = ["create_locked", "left_behind", "sync", "waiting_lock"]


def create_locked(path: Path) -> int:
    """Create the file `path`, 0600, and return a descriptor which holds its lock until it is closed.

    Raises:
        OSError: it cannot be made, is there, or was taken for a dead writer's before it was locked.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another may have seen it before it was locked, and removed it.
        if os.fstat(descriptor).st_nlink == 0:
            raise FileNotFoundError(f"{path} was removed while it was made")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def left_behind(path: Path) -> Generator[int | None]:
    """Lock the file `path` if no living process holds it; give its descriptor, or None where one does or it is gone."""
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
            # Whoever held it before may have finished with it.
            yield descriptor if os.fstat(descriptor).st_nlink else None
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def waiting_lock(path: Path) -> Generator[None]:
    """Hold the lock of the file `path`, which is made where it is not there; wait for it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
