"""Private files: written as a whole, synced to disk, or locked by the process that writes them.

Several writers share one folder. Each holds a lock (`flock`) on every file that it has not finished. The kernel
releases the lock when the process ends, however it ends. So a file that another process can lock was left by a dead
writer.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO


def write_private(path: Path, content: str | bytes, *, mode: int = 0o600, durable: bool = False) -> None:
    """Write `content` to `path` as `replacement` does; create its folder, mode 0700, if missing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with replacement(path, mode=mode, durable=durable) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacement(
    path: Path, *, partial: Path | None = None, mode: int = 0o600, durable: bool = True
) -> Generator[BinaryIO]:
    """Yield a new file that becomes `path` when the block ends: readers see the old file or all of the new one.

    When the block raises, `path` stays as it was.

    Args:
        path: the file to create or replace; its folder must exist.
        partial: name of the file until it is complete; a hidden one next to `path` by default.
        mode: permissions of the file, whatever the umask is.
        durable: sync the file and its folder, so that the new content survives a crash of the machine.
    """
    work = partial or path.with_name(f".{path.name[:200]}.{os.getpid()}.partial")
    try:
        with os.fdopen(os.open(work, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            yield file
            os.fchmod(file.fileno(), mode)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        work.replace(path)
    except BaseException:
        work.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def sync(path: Path) -> None:
    """Make the content of a file, or the names in a folder, survive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_locked(path: Path) -> int:
    """Create the file `path`, mode 0600, and return a descriptor that holds its lock until it is closed.

    Raises:
        OSError: the file exists, cannot be created, or another process removed it before it was locked.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another process may have taken it for a dead writer's file and removed it before it was locked.
        if os.fstat(descriptor).st_nlink == 0:
            raise FileNotFoundError(f"{path} was removed while it was created")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def left_behind(path: Path) -> Generator[int | None]:
    """Lock `path` and yield its descriptor; yield None if a living process holds the lock or the file is gone."""
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
            # The previous holder may have finished and removed it.
            yield descriptor if os.fstat(descriptor).st_nlink else None
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def waiting_lock(path: Path) -> Generator[None]:
    """Wait for the lock of the file `path` and hold it; create the file if it does not exist."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
