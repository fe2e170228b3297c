"""A folder as an object store of a migration."""

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
from ..container_script import CHUNK, PARTIAL, SQLITE, file_names


class FolderStore:
    """The files below `folder`; see `Store`.

    Reading a SQLite database gives a consistent copy, even while others write to it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> Iterator[str]:
        """See `Store`."""
        return file_names(self._folder)

    @contextmanager
    def open(self, name: str) -> Generator[tuple[BinaryIO, int]]:
        """See `Store`."""
        path = self._folder / name
        try:
            file = path.open("rb")
        except FileNotFoundError:
            raise NotFoundError("no longer exists", field="object", value=name) from None
        with file:
            if file.read(len(SQLITE)) == SQLITE:
                with sqlite_copy(path) as copy, copy.open("rb") as copied:
                    yield copied, copy.stat().st_size
                return
            file.seek(0)
            yield file, os.fstat(file.fileno()).st_size

    def write(self, name: str, source: BinaryIO, size: int) -> None:
        """See `Store`."""
        path = self._folder / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacement(path, partial=path.with_name(path.name[:100] + PARTIAL)) as file:
            shutil.copyfileobj(source, file, CHUNK)
            if file.tell() != size:
                raise PlatformError("ended before its size was reached", field="object", value=name)

    def sha256(self, name: str) -> str | None:
        """See `Store`."""
        try:
            with (self._folder / name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None


@contextmanager
def sqlite_copy(path: Path) -> Generator[Path]:
    """Give a consistent, private copy of the SQLite database at `path`, without blocking writers."""
    with tempfile.TemporaryDirectory(prefix="tidemill-") as folder:
        copy = Path(folder) / "copy.db"
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60)) as old,
            closing(sqlite3.connect(copy)) as new,
        ):
            old.backup(new)
            # Otherwise the copy cannot be opened in a read-only folder.
            new.execute("pragma journal_mode = delete")
        yield copy
