"""Writes archives; until an archive is complete, it has a temporary name."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

from ...runtime.common.errors import NotFoundError, UserError
from ...runtime.common.files import sync
from .encryption import ArchiveKeys
from .layout import CHUNK, CONTENTS, LIST, MANIFEST, SIGNATURE, CountBytes, HashedReader, safe_name
from .manifest import Entry, Manifest


class ArchiveWriter(ABC):
    """Writes an archive; use it with `with`, which removes an unfinished archive.

    Args:
        path: the new archive.
        count: receives the number of bytes of each write.
    """

    def __init__(self, path: Path, count: CountBytes = lambda _: None) -> None:
        if path.exists() or path.is_symlink():
            raise UserError("already exists", field="archive", value=str(path))
        if not path.parent.is_dir():
            raise NotFoundError("its folder does not exist", field="archive", value=str(path))
        self.path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self._count = count
        self._entries: dict[str, Entry] = {}

    def __enter__(self) -> Self:
        self._remove()
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._remove()

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def size(self, name: str) -> int:
        """Return the size of the file `name` in bytes."""
        return self._entries[name].size

    def add(self, name: str, source: BinaryIO, size: int) -> Entry:
        """Write `size` bytes of `source` as the file `name`.

        Raises:
            UserError: the name is invalid or already used.
        """
        if not safe_name(name) or name in self._entries:
            raise UserError("the name of the file is invalid or already used", field="archive", value=name)
        reader = HashedReader(source, size, self._count)
        self._put(CONTENTS + name, reader, size)
        entry = Entry(name=name, size=size, sha256=reader.sha256)
        self._entries[name] = entry
        return entry

    def add_bytes(self, name: str, data: bytes) -> Entry:
        """Write `data` as the file `name`."""
        return self.add(name, io.BytesIO(data), len(data))

    def finish(self, manifest: Callable[[int, int, str], Manifest], keys: ArchiveKeys) -> Manifest:
        """Write the list of files and the manifest, and rename the archive to its final name.

        Args:
            manifest: makes the manifest from the number of files, their total size, and the hash of their list.
            keys: signs the manifest.
        """
        lines = "".join(f"{entry.model_dump_json()}\n" for entry in self._entries.values()).encode()
        total = sum(entry.size for entry in self._entries.values())
        made = manifest(len(self._entries), total, hashlib.sha256(lines).hexdigest())
        text = made.model_dump_json(indent=1).encode()
        for name, data in ((LIST, lines), (MANIFEST, text), (SIGNATURE, keys.sign(text).encode())):
            self._put(name, HashedReader(io.BytesIO(data), len(data), lambda _: None), len(data))
        self._end()
        self._partial.rename(self.path)
        sync(self.path.parent)
        return made

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _put(self, name: str, reader: HashedReader, size: int) -> None:
        """Write the `size` bytes of `reader` as the file `name` of the archive."""

    @abstractmethod
    def _end(self) -> None:
        """Flush everything to the disk; may be called again."""

    def _remove(self) -> None:
        if self._partial.is_dir() and not self._partial.is_symlink():
            shutil.rmtree(self._partial)
        else:
            self._partial.unlink(missing_ok=True)


class _FolderWriter(ArchiveWriter):
    def _begin(self) -> None:
        self._partial.mkdir(mode=0o700)

    def _put(self, name: str, reader: HashedReader, size: int) -> None:
        del size
        path = self._partial / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            shutil.copyfileobj(reader, file, CHUNK)
            file.flush()
            os.fsync(file.fileno())

    def _end(self) -> None:
        pass


class _TarWriter(ArchiveWriter):
    def __init__(self, path: Path, count: CountBytes) -> None:
        super().__init__(path, count)
        self._open = ExitStack()

    def _begin(self) -> None:
        descriptor = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = self._open.enter_context(os.fdopen(descriptor, "w+b"))
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)

    def _put(self, name: str, reader: HashedReader, size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size = size
        info.mode = 0o600
        self._tar.addfile(info, cast("BinaryIO", io.BufferedReader(reader, CHUNK)))

    def _end(self) -> None:
        if not self._file.closed:
            self._tar.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._open.close()


def writer_of(path: Path, count: CountBytes = lambda _: None) -> ArchiveWriter:
    """Return the writer of an archive at `path`: a tar file if the name ends in `.tar`, else a folder."""
    return (_TarWriter if path.suffix == ".tar" else _FolderWriter)(path, count)
