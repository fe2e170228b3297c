"""A folder as an object store which moves."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

from ....runtime.common.errors import NotFoundError, PlatformError
from ....runtime.common.files import replacement

__all__ = ["FolderStore", "sqlite_copy"]

_SQLITE = b"SQLite format 3\0"
_COMPANIONS = ("-wal", "-shm", "-journal")
_PARTIAL = ".tidemill-partial"
_CHUNK = 1 << 20


class FolderStore:
    """The files below `folder`; see `Store`.

    A file which is a SQLite database is read as of one moment, though others write to it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> Iterator[str]:
        """See `Store`."""
        for folder, folders, files in os.walk(self._folder):
            folders.sort()
            for name in sorted(files):
                path = Path(folder, name)
                if path.is_symlink() or not path.is_file() or name.endswith(_PARTIAL):
                    continue
                base = next((name.removesuffix(end) for end in _COMPANIONS if name.endswith(end)), None)
                if base in files and _is_sqlite(path.with_name(str(base))):
                    continue
                yield path.relative_to(self._folder).as_posix()

    @contextmanager
    def open(self, name: str) -> Generator[tuple[BinaryIO, int]]:
        """See `Store`."""
        path = self._folder / name
        try:
            file = path.open("rb")
        except FileNotFoundError:
            raise NotFoundError("it is gone", field="object", value=name) from None
        with file:
            if file.read(len(_SQLITE)) == _SQLITE:
                with sqlite_copy(path) as copy, copy.open("rb") as whole:
                    yield whole, copy.stat().st_size
                return
            file.seek(0)
            yield file, os.fstat(file.fileno()).st_size

    def write(self, name: str, source: BinaryIO, size: int) -> None:
        """See `Store`."""
        path = self._folder / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacement(path, partial=path.with_name(path.name[:100] + _PARTIAL)) as file:
            shutil.copyfileobj(source, file, _CHUNK)
            if file.tell() != size:
                raise PlatformError("not all of it came", field="object", value=name)

    def sha256(self, name: str) -> str | None:
        """See `Store`."""
        try:
            with (self._folder / name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None


@contextmanager
def sqlite_copy(path: Path) -> Generator[Path]:
    """Give a private copy of the SQLite database at `path` as of one moment; writers are not held up."""
    with tempfile.TemporaryDirectory(prefix="tidemill-") as folder:
        copy = Path(folder) / "copy.db"
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60)) as old,
            closing(sqlite3.connect(copy)) as new,
        ):
            old.backup(new)
            # Else the copy could not be opened where nothing may be written beside it.
            new.execute("pragma journal_mode = delete")
        yield copy


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE
