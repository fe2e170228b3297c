"""Reads archives, and first verifies that every byte is as the export wrote it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, Self, cast

from pydantic import ValidationError

from ...runtime.common.errors import NotFoundError, RefusedError
from .encryption import ArchiveKeys
from .layout import CHUNK, CONTENTS, LIST, MANIFEST, OWN, SIGNATURE, CountBytes, HashedReader, safe_name
from .manifest import FORMAT, Entry, Manifest

_LARGEST_MANIFEST = 64 << 20


class Archive(ABC):
    """An archive to read; call `verify` before using its contents."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, Entry] = {}

    @abstractmethod
    def _names(self) -> Iterator[str]:
        """Yield the name of every file.

        Raises:
            RefusedError: an entry is not a regular file.
        """

    @abstractmethod
    def _open(self, name: str) -> AbstractContextManager[BinaryIO]: ...

    @abstractmethod
    def _size(self, name: str) -> int: ...

    @abstractmethod
    def close(self) -> None:
        """Close it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def manifest(self, passphrase: str) -> tuple[Manifest, ArchiveKeys]:
        """Check the manifest's signature, and return the manifest and the keys.

        Raises:
            RefusedError: it is not an archive, has a newer format or was changed, or the passphrase is wrong.
        """
        text = self._read_own(MANIFEST)
        try:
            form = json.loads(text).get("form")
            if isinstance(form, int) and form > FORMAT:
                raise _refused(
                    f"has format {form}; this tidemill supports up to {FORMAT}", hint="install a newer tidemill"
                )
            found = Manifest.model_validate_json(text)
        except (ValidationError, ValueError, AttributeError):
            raise _changed(MANIFEST, "is not a manifest") from None
        keys = ArchiveKeys.derive(passphrase, found.salt)
        if not keys.verify(found.salt.encode(), found.passphrase):
            raise _refused("wrong passphrase, or the archive's manifest was changed", field="passphrase")
        if not keys.verify(text, self._read_own(SIGNATURE).decode("ascii", "replace").strip()):
            raise _changed(MANIFEST, "was changed after the export")
        return found, keys

    def verify(self, manifest: Manifest, count: CountBytes = lambda _: None) -> None:
        """Read every byte and compare it with the list of files.

        Raises:
            RefusedError: a file is missing, changed or not in the list; names the first one.
        """
        listing = self._read_own(LIST, largest=None)
        if hashlib.sha256(listing).hexdigest() != manifest.list_sha256:
            raise _changed(LIST, "was changed after the export")
        entries = [Entry.model_validate_json(line) for line in listing.splitlines()]
        self.entries = {entry.name: entry for entry in entries}
        unsafe = next((name for name in self.entries if not safe_name(name)), None)
        if unsafe is not None:
            raise _changed(unsafe, "is not a valid name in an archive")
        found = set(self._names())
        wanted = {CONTENTS + name for name in self.entries} | OWN
        if missing := min(wanted - found, default=None):
            raise _changed(missing, "is missing")
        if more := min(found - wanted, default=None):
            raise _changed(more, "is not in the list of files")
        for entry in entries:
            self._verify(entry, count)

    def _verify(self, entry: Entry, count: CountBytes) -> None:
        if self._size(CONTENTS + entry.name) != entry.size:
            raise _changed(CONTENTS + entry.name, "has the wrong size")
        with self._open(CONTENTS + entry.name) as source:
            reader = HashedReader(source, entry.size, count)
            _drain(reader, CONTENTS + entry.name)
        if reader.sha256 != entry.sha256:
            raise _changed(CONTENTS + entry.name, "was changed after the export")

    def below(self, prefix: str) -> list[Entry]:
        """Return the files whose names start with `prefix`; call `verify` first."""
        return [entry for name, entry in self.entries.items() if name.startswith(prefix)]

    @contextmanager
    def reading(self, entry: Entry, count: CountBytes = lambda _: None) -> Generator[BinaryIO]:
        """Open a verified file; the caller must read all of it, and its bytes are verified again.

        Raises:
            RefusedError: the file was changed since `verify`.
        """
        with self._open(CONTENTS + entry.name) as source:
            reader = HashedReader(source, entry.size, count)
            try:
                yield cast("BinaryIO", io.BufferedReader(reader, CHUNK))
            except EOFError:
                raise _changed(CONTENTS + entry.name, "was truncated during the import") from None
            if reader.sha256 != entry.sha256:
                raise _changed(CONTENTS + entry.name, "was changed during the import")

    def read(self, name: str) -> bytes:
        """Return the bytes of a small file; call `verify` first."""
        entry = self.entries.get(name)
        if entry is None:
            raise _changed(CONTENTS + name, "is missing")
        with self.reading(entry) as source:
            return source.read()

    def _read_own(self, name: str, *, largest: int | None = _LARGEST_MANIFEST) -> bytes:
        try:
            with self._open(name) as source:
                if largest is not None and self._size(name) > largest:
                    raise _changed(name, "is too large")
                return source.read()
        except (KeyError, FileNotFoundError):
            raise _refused("is not an archive of tidemill, or is incomplete", value=str(self.path)) from None


class _FolderArchive(Archive):
    def _names(self) -> Iterator[str]:
        for folder, folders, files in os.walk(self.path):
            for name in (*folders, *files):
                path = Path(folder, name)
                if path.is_symlink() or not (path.is_dir() or path.is_file()):
                    raise _changed(path.relative_to(self.path).as_posix(), "is not a regular file")
            yield from (Path(folder, name).relative_to(self.path).as_posix() for name in files)

    @contextmanager
    def _open(self, name: str) -> Generator[BinaryIO]:
        with (self.path / PurePosixPath(name)).open("rb") as file:
            yield file

    def _size(self, name: str) -> int:
        return (self.path / PurePosixPath(name)).stat().st_size

    def close(self) -> None:
        """Close it."""


class _TarArchive(Archive):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = path.open("rb")
        try:
            self._tar = tarfile.TarFile(fileobj=self._file)
            members = self._tar.getmembers()
        except (tarfile.TarError, OSError, EOFError) as error:
            self._file.close()
            raise _refused(f"is not a tar file, or is incomplete ({error})", value=str(path)) from None
        self._members: dict[str, tarfile.TarInfo] = {}
        for member in members:
            if not member.isreg() or member.name in self._members:
                self.close()
                raise _changed(member.name, "is not a regular file, or exists twice")
            self._members[member.name] = member

    def _names(self) -> Iterator[str]:
        yield from self._members

    @contextmanager
    def _open(self, name: str) -> Generator[BinaryIO]:
        # All members are regular files, so the result is not None.
        with cast("IO[bytes]", self._tar.extractfile(self._members[name])) as file:
            try:
                yield cast("BinaryIO", file)
            except tarfile.ReadError:
                raise _changed(name, "is truncated") from None

    def _size(self, name: str) -> int:
        return self._members[name].size

    def close(self) -> None:
        """Close it."""
        self._tar.close()
        self._file.close()


def open_archive(path: Path) -> Archive:
    """Open the archive at `path`, a folder or a tar file.

    Raises:
        NotFoundError: it does not exist.
        RefusedError: it is not an archive.
    """
    if path.is_dir():
        return _FolderArchive(path)
    if not path.is_file():
        raise NotFoundError("no such file or folder", field="archive", value=str(path))
    return _TarArchive(path)


def _drain(reader: HashedReader, name: str) -> None:
    buffer = bytearray(CHUNK)
    try:
        while reader.readinto(buffer):
            pass
    except EOFError:
        raise _changed(name, "is truncated") from None


def _refused(
    message: str, *, field: str = "archive", value: str | None = None, hint: str | None = None
) -> RefusedError:
    return RefusedError(message, field=field, value=value, hint=hint)


def _changed(name: str, how: str) -> RefusedError:
    return RefusedError(f"{name} {how}; nothing was imported", field="archive", hint="copy or export it again")
