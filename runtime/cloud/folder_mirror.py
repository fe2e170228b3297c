"""Mirrors a folder to or from a prefix in S3, file by file, each file atomically.

S3 checks each upload against its SHA-256. SQLite databases are copied by SQLite itself, so that every copy is
consistent; their journals are not copied.
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

from ..capture import CAPTURE, LABELS, recover
from ..common.errors import ConfigError
from ..common.files import replacement
from .task_files import Place

_log = logging.getLogger(__name__)
_PARALLEL = 16
_FIRST_SECONDS = 60.0
_SQLITE = b"SQLite format 3\x00"
_SQLITE_SUFFIXES = ("-wal", "-shm", "-journal")

Mark = tuple[int, int]


def _mark(path: Path) -> Mark:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and path of the finished files below `folder`: no hidden files, and none in hidden folders."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts) or path.is_symlink():
            continue
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                yield name.as_posix(), path


@dataclass
class _Mirror:
    """The base of the three mirrors.

    Attributes:
        s3: an S3 client.
        place: bucket and prefix in S3.
        folder: the local folder.
        owner: user id that owns fetched files; None for the user of this process.
    """

    s3: Any
    place: Place
    folder: Path
    owner: int | None = None

    def _key(self, name: str) -> str:
        return f"{self.place.key.rstrip('/')}/{name}"

    def _list(self) -> dict[str, tuple[str, int]]:
        """Return name -> (entity tag, size) of the objects in S3."""
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
        """Fetch one object into the folder, atomically."""
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            raise ConfigError("leads out of the folder", field="object", value=name)
        path = self.folder / relative
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        hidden = path.with_name(f".{path.name}.fetched")
        body = self.s3.get_object(Bucket=self.place.bucket, Key=self._key(name), ChecksumMode="ENABLED")["Body"]
        with replacement(path, partial=hidden, durable=False) as file:
            for chunk in body.iter_chunks(1 << 20):
                file.write(chunk)
            self._set_owner(hidden)
        for parent in path.relative_to(self.folder).parents:
            self._set_owner(self.folder / parent)

    def _set_owner(self, path: Path) -> None:
        if self.owner is not None:
            os.chown(path, self.owner, self.owner)

    def _get_all(self, names: list[str], *, more: Callable[[], bool] = lambda: True) -> int:
        """Fetch `names` in order while `more()` is true; return the number of fetched files."""
        done = 0
        with ThreadPoolExecutor(_PARALLEL) as pool:
            while done < len(names) and more():
                part = names[done : done + _PARALLEL * 4]
                list(pool.map(self._get, part))
                done += len(part)
        return done


@dataclass
class Keep(_Mirror):
    """Mirrors a folder with a single writer: restores it when the task starts, then uploads changes."""

    _known: dict[str, Mark] = field(default_factory=dict[str, Mark])

    def restore(self) -> int:
        """Fetch all files and return their number."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._set_owner(self.folder)
        names = list(self._list())
        self._get_all(names)
        return len(names)

    def start(self) -> None:
        """Record the files that are equal on both sides, as after `restore`."""
        remote = self._list()
        self._known = {
            name: _mark(path)
            for name, path in _files(self.folder)
            if name in remote and remote[name][1] == path.stat().st_size and not _is_sqlite(path)
        }
        # Objects that exist only in S3 stay there: an empty folder must never empty its prefix.

    def sweep(self) -> int:
        """Upload and delete what changed since the last sweep; return the number of files."""
        changed = 0
        seen: set[str] = set()
        for name, path in _files(self.folder):
            if name.endswith(_SQLITE_SUFFIXES):
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
                # A single file that opens without a write-ahead log.
                target.execute("PRAGMA journal_mode = DELETE")
            finally:
                target.close()
                source.close()
            self._put(name, copy)


@dataclass
class Send(_Mirror):
    """Uploads the finished segments of one of several writers, and later removes them here.

    Attributes:
        hold_seconds: how long an uploaded segment stays in the folder.
        clock: returns seconds since the epoch.
    """

    hold_seconds: float = 3600.0
    clock: Callable[[], float] = time.time
    _sent: dict[str, Mark] = field(default_factory=dict[str, Mark])

    def restore(self) -> int:
        """Create the folder; fetch no segments of other writers."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._set_owner(self.folder)
        return 0

    def start(self) -> None:
        """Do nothing: no segment has been uploaded yet."""

    def sweep(self) -> int:
        """Upload new and changed segments; return their number."""
        sent = 0
        for kind in (CAPTURE, LABELS):
            for name, path in _files(self.folder / kind):
                key = f"{kind}/{name}"
                try:
                    mark = _mark(path)
                    if self._sent.get(key) != mark:
                        self._put(key, path)
                        self._sent[key] = mark
                        sent += 1
                    elif self.clock() - mark[0] / 1e9 > self.hold_seconds:
                        path.unlink()
                except FileNotFoundError:
                    continue
        self._sent = {name: mark for name, mark in self._sent.items() if (self.folder / name).exists()}
        return sent

    def finish(self) -> int:
        """Recover the journals of killed servers into segments, and upload the remaining segments."""
        recover(self.folder)
        return self.sweep()


@dataclass
class Fetch(_Mirror):
    """Downloads a prefix that others write: fetches new files and removes deleted ones."""

    _known: dict[str, str] = field(default_factory=dict[str, str])

    def restore(self, *, seconds: float = _FIRST_SECONDS, clock: Callable[[], float] = time.monotonic) -> int:
        """Fetch the newest files for `seconds`, as long as ECS waits; return their number. `sweep` fetches the rest."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._set_owner(self.folder)
        # Names start with the day and the time.
        until = clock() + seconds
        return self._get_all(sorted(self._list(), reverse=True), more=lambda: clock() < until)

    def start(self) -> None:
        """Treat files of the same name and size as equal."""
        self._known = {
            name: tag
            for name, (tag, size) in self._list().items()
            if (self.folder / name).is_file() and (self.folder / name).stat().st_size == size
        }

    def sweep(self) -> int:
        """Fetch new files and remove deleted ones; return the number of changes."""
        remote = self._list()
        new = [name for name, (tag, _) in remote.items() if self._known.get(name) != tag]
        self._get_all(new)
        gone = [name for name, _ in _files(self.folder) if name not in remote]
        for name in gone:
            (self.folder / name).unlink(missing_ok=True)
        self._known = {name: tag for name, (tag, _) in remote.items()}
        return len(new) + len(gone)


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def _newest(path: Path) -> Mark:
    """Return the mark of a file; for a database, including its journals."""
    mark = _mark(path)
    for suffix in _SQLITE_SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            journal = _mark(path.with_name(f"{path.name}{suffix}"))
            mark = (max(mark[0], journal[0]), mark[1] + journal[1])
    return mark
