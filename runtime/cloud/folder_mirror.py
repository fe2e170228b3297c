"""A folder and a place in S3: what the one holds comes to the other, file by file, each whole or not at all.

S3 checks each upload against its SHA-256. SQLite databases are copied through SQLite itself, so that a copy is one
that could be opened; their journals are not copied.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..capture import CAPTURE, LABELS
from ..common.errors import ConfigError
from ..common.files import replacement
from .task_files import Place

__all__ = ["Fetch", "Keep", "Send"]

_log = logging.getLogger(__name__)
_AT_ONCE = 16
_FIRST_SECONDS = 60.0
_SQLITE = b"SQLite format 3\x00"
_BESIDE_SQLITE = ("-wal", "-shm", "-journal")

Mark = tuple[int, int]


def _mark(path: Path) -> Mark:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and path of what is finished below `folder`: not what is hidden, nor in a hidden folder."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts) or path.is_symlink():
            continue
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                yield name.as_posix(), path


@dataclass
class _Mirror:
    """What the three have in common.

    Attributes:
        s3: a client of S3.
        place: where it is.
        folder: the folder.
        owner: whom fetched files are given to; None leaves them to this process.
    """

    s3: Any
    place: Place
    folder: Path
    owner: int | None = None

    def _key(self, name: str) -> str:
        return f"{self.place.key.rstrip('/')}/{name}"

    def _list(self) -> dict[str, tuple[str, int]]:
        """Return name -> (entity tag, size) of what is there."""
        prefix = self._key("")
        found: dict[str, tuple[str, int]] = {}
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.place.bucket, Prefix=prefix)
        for page in pages:
            for entry in page.get("Contents", ()):
                found[entry["Key"].removeprefix(prefix)] = (entry["ETag"], int(entry["Size"]))
        return found

    def _put(self, name: str, path: Path) -> None:
        with path.open("rb") as body:
            self.s3.put_object(Bucket=self.place.bucket, Key=self._key(name), Body=body, ChecksumAlgorithm="SHA256")

    def _get(self, name: str) -> None:
        """Fetch one object into the folder; a reader sees the old file or the new one, never half of it."""
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts:
            raise ConfigError("leads out of the folder", field="object", value=name)
        path = self.folder / inside
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        hidden = path.with_name(f".{path.name}.fetched")
        body = self.s3.get_object(Bucket=self.place.bucket, Key=self._key(name), ChecksumMode="ENABLED")["Body"]
        with replacement(path, partial=hidden, durable=False) as file:
            for chunk in body.iter_chunks(1 << 20):
                file.write(chunk)
            self._give(hidden)
        for parent in path.relative_to(self.folder).parents:
            self._give(self.folder / parent)

    def _give(self, path: Path) -> None:
        if self.owner is not None:
            os.chown(path, self.owner, self.owner)

    def _get_all(self, names: list[str], *, more: Callable[[], bool] = lambda: True) -> int:
        """Fetch `names`, or as many of the first of them as can be had while there may be `more`; return how many."""
        done = 0
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while done < len(names) and more():
                part = names[done : done + _AT_ONCE * 4]
                list(pool.map(self._get, part))
                done += len(part)
        return done


@dataclass
class Keep(_Mirror):
    """The one owner's folder: restored when its task starts, and kept from then on."""

    _known: dict[str, Mark] = field(default_factory=dict[str, Mark])

    def restore(self) -> int:
        """Fetch everything; return how many files."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._give(self.folder)
        names = list(self._list())
        self._get_all(names)
        return len(names)

    def start(self) -> None:
        """Take note of what is the same on both sides, as `restore` leaves it."""
        there = self._list()
        self._known = {
            name: _mark(path)
            for name, path in _files(self.folder)
            if name in there and there[name][1] == path.stat().st_size and not _is_sqlite(path)
        }
        # What only S3 has is left there: an empty folder must never empty its place.

    def sweep(self) -> int:
        """Bring what has changed since the last time to S3; return how many files."""
        changed = 0
        seen: set[str] = set()
        for name, path in _files(self.folder):
            if name.endswith(_BESIDE_SQLITE):
                continue
            seen.add(name)
            try:
                mark = _newest(path)
                if self._known.get(name) == mark:
                    continue
                if _is_sqlite(path):
                    self._put_sqlite(name, path)
                else:
                    self._put(name, path)
            except FileNotFoundError:
                continue
            self._known[name] = mark
            changed += 1
        for name in [name for name in self._known if name not in seen]:
            self.s3.delete_object(Bucket=self.place.bucket, Key=self._key(name))
            del self._known[name]
            changed += 1
        return changed

    def _put_sqlite(self, name: str, path: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="tidemill-") as folder:
            copy = Path(folder) / "copy.db"
            source = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30.0)
            target = sqlite3.connect(copy)
            try:
                source.backup(target)
                # One file, which opens where no other is beside it.
                target.execute("PRAGMA journal_mode = DELETE")
            finally:
                target.close()
                source.close()
            self._put(name, copy)


@dataclass
class Send(_Mirror):
    """Segments of one of several writers: sent as they are finished, then forgotten here.

    Attributes:
        hold_seconds: how long a sent segment stays in the folder.
        clock: seconds since the epoch.
    """

    hold_seconds: float = 3600.0
    clock: Callable[[], float] = time.time
    _sent: dict[str, Mark] = field(default_factory=dict[str, Mark])

    def restore(self) -> int:
        """Make the folder; nothing of the others' is fetched."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._give(self.folder)
        return 0

    def start(self) -> None:
        """Nothing was sent yet."""

    def sweep(self) -> int:
        """Send what is new, or was written anew; return how many segments."""
        sent = 0
        for kind in (CAPTURE, LABELS):
            for name, path in _files(self.folder / kind):
                whole = f"{kind}/{name}"
                try:
                    mark = _mark(path)
                    if self._sent.get(whole) != mark:
                        self._put(whole, path)
                        self._sent[whole] = mark
                        sent += 1
                    elif self.clock() - mark[0] / 1e9 > self.hold_seconds:
                        path.unlink()
                except FileNotFoundError:
                    continue
        self._sent = {name: mark for name, mark in self._sent.items() if (self.folder / name).exists()}
        return sent

    def finish(self) -> int:
        """Make segments of what a killed server left in its journal, and send the rest."""
        from ..capture import recover

        recover(self.folder)
        return self.sweep()


@dataclass
class Fetch(_Mirror):
    """What others wrote: it comes as it is written, and goes when it is gone there."""

    _known: dict[str, str] = field(default_factory=dict[str, str])

    def restore(self, *, seconds: float = _FIRST_SECONDS, clock: Callable[[], float] = time.monotonic) -> int:
        """Fetch the newest for a while, since ECS waits no longer; the rest comes later. Return how many files."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._give(self.folder)
        # Names hold the day and the time.
        until = clock() + seconds
        return self._get_all(sorted(self._list(), reverse=True), more=lambda: clock() < until)

    def start(self) -> None:
        """Take what is here, and of the size it has there, for the same."""
        self._known = {
            name: tag
            for name, (tag, size) in self._list().items()
            if (self.folder / name).is_file() and (self.folder / name).stat().st_size == size
        }

    def sweep(self) -> int:
        """Fetch what is new, remove what is gone; return how many files changed."""
        there = self._list()
        new = [name for name, (tag, _) in there.items() if self._known.get(name) != tag]
        self._get_all(new)
        gone = [name for name, _ in _files(self.folder) if name not in there]
        for name in gone:
            (self.folder / name).unlink(missing_ok=True)
        self._known = {name: tag for name, (tag, _) in there.items()}
        return len(new) + len(gone)


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def _newest(path: Path) -> Mark:
    """Return the mark of a file; of a database, with what was written beside it."""
    mark = _mark(path)
    for suffix in _BESIDE_SQLITE:
        with contextlib.suppress(FileNotFoundError):
            beside = _mark(path.with_name(f"{path.name}{suffix}"))
            mark = (max(mark[0], beside[0]), mark[1] + beside[1])
    return mark
