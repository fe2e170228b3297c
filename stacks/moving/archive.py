"""Reads an archive, of which nothing is believed before every byte of it was compared with what the export wrote."""

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
from .layout import CHUNK, CONTENTS, LIST, MANIFEST, OWN, WITNESS, HashedReader, Tell, safe_name
from .manifest import FORMAT, Entry, Manifest
from .sealing import Seal

__all__ = ["Archive", "open_archive"]

_LARGEST_MANIFEST = 64 << 20


class Archive(ABC):
    """An archive which is read. Nothing in it is believed before `verify`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, Entry] = {}

    @abstractmethod
    def _names(self) -> Iterator[str]:
        """Yield the name of every file.

        Raises:
            RefusedError: there is something which is no plain file.
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

    def manifest(self, passphrase: str) -> tuple[Manifest, Seal]:
        """Return the manifest, for which the passphrase vouches, and what decrypts.

        Raises:
            RefusedError: it is no archive, or one of a later form, or was changed, or the passphrase is another one.
        """
        text = self._own(MANIFEST)
        try:
            form = json.loads(text).get("form")
            if isinstance(form, int) and form > FORMAT:
                raise _refused(f"its form is {form}, and this tidemill knows {FORMAT}", hint="take a newer tidemill")
            found = Manifest.model_validate_json(text)
        except (ValidationError, ValueError, AttributeError):
            raise _changed(MANIFEST, "is not what an export writes") from None
        seal = Seal.of(passphrase, found.salt)
        if not seal.vouches(found.salt.encode(), found.passphrase):
            raise _refused("this is not the passphrase of the archive, or its manifest was changed", field="passphrase")
        if not seal.vouches(text, self._own(WITNESS).decode("ascii", "replace").strip()):
            raise _changed(MANIFEST, "was changed after the export")
        return found, seal

    def verify(self, manifest: Manifest, tell: Tell = lambda _: None) -> None:
        """Read every byte and compare: each file is listed and as it was written, and no other is there.

        Raises:
            RefusedError: names the first file which is not.
        """
        listing = self._own(LIST, largest=None)
        if hashlib.sha256(listing).hexdigest() != manifest.list_sha256:
            raise _changed(LIST, "was changed after the export")
        entries = [Entry.model_validate_json(line) for line in listing.splitlines()]
        self.entries = {entry.name: entry for entry in entries}
        unsafe = next((name for name in self.entries if not safe_name(name)), None)
        if unsafe is not None:
            raise _changed(unsafe, "is no name for a file of an archive")
        found = set(self._names())
        wanted = {CONTENTS + name for name in self.entries} | OWN
        if missing := min(wanted - found, default=None):
            raise _changed(missing, "is missing")
        if more := min(found - wanted, default=None):
            raise _changed(more, "was not written by the export")
        for entry in entries:
            self._verify(entry, tell)

    def _verify(self, entry: Entry, tell: Tell) -> None:
        if self._size(CONTENTS + entry.name) != entry.size:
            raise _changed(CONTENTS + entry.name, "has another size than the export wrote")
        with self._open(CONTENTS + entry.name) as source:
            reader = HashedReader(source, entry.size, tell)
            _drain(reader, CONTENTS + entry.name)
        if reader.sha256 != entry.sha256:
            raise _changed(CONTENTS + entry.name, "was changed after the export")

    def below(self, prefix: str) -> list[Entry]:
        """Return the files whose names begin with `prefix`, after `verify`."""
        return [entry for name, entry in self.entries.items() if name.startswith(prefix)]

    @contextmanager
    def reading(self, entry: Entry, tell: Tell = lambda _: None) -> Generator[BinaryIO]:
        """Give the bytes of a file once more; at the end of the block they must all have been read, and be the same.

        Raises:
            RefusedError: they are not those which were verified.
        """
        with self._open(CONTENTS + entry.name) as source:
            reader = HashedReader(source, entry.size, tell)
            try:
                yield cast("BinaryIO", io.BufferedReader(reader, CHUNK))
            except EOFError:
                raise _changed(CONTENTS + entry.name, "was cut short meanwhile") from None
            if reader.sha256 != entry.sha256:
                raise _changed(CONTENTS + entry.name, "was changed meanwhile")

    def read(self, name: str) -> bytes:
        """Return the bytes of a small file, after `verify`."""
        entry = self.entries.get(name)
        if entry is None:
            raise _changed(CONTENTS + name, "is missing")
        with self.reading(entry) as source:
            return source.read()

    def _own(self, name: str, *, largest: int | None = _LARGEST_MANIFEST) -> bytes:
        try:
            with self._open(name) as source:
                if largest is not None and self._size(name) > largest:
                    raise _changed(name, "is too large")
                return source.read()
        except (KeyError, FileNotFoundError):
            raise _refused("this is no archive of tidemill, or a part of one", value=str(self.path)) from None


class _FolderArchive(Archive):
    def _names(self) -> Iterator[str]:
        for folder, folders, files in os.walk(self.path):
            for name in (*folders, *files):
                path = Path(folder, name)
                if path.is_symlink() or not (path.is_dir() or path.is_file()):
                    raise _changed(path.relative_to(self.path).as_posix(), "is no plain file")
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
            raise _refused(f"this is no tar file, or a part of one ({error})", value=str(path)) from None
        self._members: dict[str, tarfile.TarInfo] = {}
        for member in members:
            if not member.isreg() or member.name in self._members:
                self.close()
                raise _changed(member.name, "is no plain file, or is there twice")
            self._members[member.name] = member

    def _names(self) -> Iterator[str]:
        yield from self._members

    @contextmanager
    def _open(self, name: str) -> Generator[BinaryIO]:
        # Only plain files are members, and those have bytes.
        with cast("IO[bytes]", self._tar.extractfile(self._members[name])) as file:
            try:
                yield cast("BinaryIO", file)
            except tarfile.ReadError:
                raise _changed(name, "is cut short") from None

    def _size(self, name: str) -> int:
        return self._members[name].size

    def close(self) -> None:
        """Close it."""
        self._tar.close()
        self._file.close()


def open_archive(path: Path) -> Archive:
    """Open the archive at `path`, a folder or a tar file.

    Raises:
        NotFoundError: there is nothing.
        RefusedError: it is no archive.
    """
    if path.is_dir():
        return _FolderArchive(path)
    if not path.is_file():
        raise NotFoundError("there is no such file or folder", field="archive", value=str(path))
    return _TarArchive(path)


def _drain(reader: HashedReader, name: str) -> None:
    buffer = bytearray(CHUNK)
    try:
        while reader.readinto(buffer):
            pass
    except EOFError:
        raise _changed(name, "is cut short") from None


def _refused(
    message: str, *, field: str = "archive", value: str | None = None, hint: str | None = None
) -> RefusedError:
    return RefusedError(message, field=field, value=value, hint=hint)


def _changed(name: str, how: str) -> RefusedError:
    return RefusedError(f"{name} {how}; nothing was imported", field="archive", hint="copy or export it again")
