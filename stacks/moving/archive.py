"""An archive: a folder, or one uncompressed tar file, of files each of which is listed with its size and hash.

    files/...        the contents
    files.jsonl      name, size and SHA-256 of each of them
    manifest.json    what they are, with the list's own hash
    manifest.hmac    a code of the manifest which only the passphrase gives

It appears whole or not at all: until then it has another name.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, BinaryIO, Self, cast

from pydantic import ValidationError
from tidemill.runtime.errors import NotFoundError, RefusedError, UserError

from .manifest import FORMAT, Entry, Manifest
from .sealing import Seal

__all__ = ["Archive", "ArchiveWriter", "HashedReader", "open_archive", "safe_name", "writer_of"]

_CONTENTS = "files/"
_LIST = "files.jsonl"
_MANIFEST = "manifest.json"
_WITNESS = "manifest.hmac"
_OWN = frozenset({_LIST, _MANIFEST, _WITNESS})
_CHUNK = 1 << 20
_LARGEST_MANIFEST = 64 << 20
_LONGEST_NAME = 4096

Tell = Callable[[int], None]
"""Is told of bytes which were read or written."""


def safe_name(name: str) -> bool:
    """Tell whether `name` is a relative path which stays where it is put.

    >>> [safe_name(name) for name in ("lake/a b/c", "", "/etc", "a/../b", "a//b", "./a")]
    [True, False, False, False, False, False]
    """
    parts = name.split("/")
    return 0 < len(name) <= _LONGEST_NAME and "\0" not in name and not any(part in ("", ".", "..") for part in parts)


class HashedReader(io.RawIOBase):
    """Reads exactly `size` bytes of `source`, and hashes them."""

    def __init__(self, source: BinaryIO, size: int, tell: Tell) -> None:
        super().__init__()
        self._source = source
        self._left = size
        self._tell = tell
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill `buffer`; an end before `size` bytes is an error."""
        view = memoryview(cast("bytearray", buffer))
        data = self._source.read(min(len(view), self._left)) if self._left else b""
        if self._left and not data:
            raise EOFError
        view[: len(data)] = data
        self._left -= len(data)
        self._hash.update(data)
        self._tell(len(data))
        return len(data)

    @property
    def sha256(self) -> str:
        """The hash of what was read."""
        return self._hash.hexdigest()


class ArchiveWriter(ABC):
    """Writes an archive; used with `with`, which removes what was not finished.

    Args:
        path: where it will be.
        tell: is told of the bytes written.
    """

    def __init__(self, path: Path, tell: Tell = lambda _: None) -> None:
        if path.exists() or path.is_symlink():
            raise UserError("there already is something of that name", field="archive", value=str(path))
        if not path.parent.is_dir():
            raise NotFoundError("its folder does not exist", field="archive", value=str(path))
        self.path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self._tell = tell
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
        """Return how many bytes the file `name` has."""
        return self._entries[name].size

    def add(self, name: str, source: BinaryIO, size: int) -> Entry:
        """Write `size` bytes of `source` as the file `name`.

        Raises:
            UserError: an archive cannot hold a file of that name.
        """
        if not safe_name(name) or name in self._entries:
            raise UserError("an archive cannot hold a file of that name", field="archive", value=name)
        reader = HashedReader(source, size, self._tell)
        self._put(_CONTENTS + name, reader, size)
        entry = Entry(name=name, size=size, sha256=reader.sha256)
        self._entries[name] = entry
        return entry

    def add_bytes(self, name: str, data: bytes) -> Entry:
        """Write `data` as the file `name`."""
        return self.add(name, io.BytesIO(data), len(data))

    def finish(self, manifest: Callable[[int, int, str], Manifest], seal: Seal) -> Manifest:
        """Write the list and the manifest, and give the archive its name.

        Args:
            manifest: makes the manifest of the number of files, their bytes, and the hash of their list.
            seal: vouches for it.
        """
        lines = "".join(f"{entry.model_dump_json()}\n" for entry in self._entries.values()).encode()
        total = sum(entry.size for entry in self._entries.values())
        made = manifest(len(self._entries), total, hashlib.sha256(lines).hexdigest())
        text = made.model_dump_json(indent=1).encode()
        for name, data in ((_LIST, lines), (_MANIFEST, text), (_WITNESS, seal.witness(text).encode())):
            self._put(name, HashedReader(io.BytesIO(data), len(data), lambda _: None), len(data))
        self._end()
        self._partial.rename(self.path)
        _sync(self.path.parent)
        return made

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _put(self, name: str, reader: HashedReader, size: int) -> None:
        """Write what `reader` gives, `size` bytes, as a file of the archive itself."""

    @abstractmethod
    def _end(self) -> None:
        """Let everything be on the disk; may be called again."""

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
            shutil.copyfileobj(reader, file, _CHUNK)
            file.flush()
            os.fsync(file.fileno())

    def _end(self) -> None:
        pass


class _TarWriter(ArchiveWriter):
    def __init__(self, path: Path, tell: Tell) -> None:
        super().__init__(path, tell)
        self._open = ExitStack()

    def _begin(self) -> None:
        descriptor = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = self._open.enter_context(os.fdopen(descriptor, "w+b"))
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)

    def _put(self, name: str, reader: HashedReader, size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size = size
        info.mode = 0o600
        self._tar.addfile(info, cast("BinaryIO", io.BufferedReader(reader, _CHUNK)))

    def _end(self) -> None:
        if not self._file.closed:
            self._tar.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._open.close()


def writer_of(path: Path, tell: Tell = lambda _: None) -> ArchiveWriter:
    """Return what writes an archive at `path`: a tar file where that is its ending, else a folder."""
    return (_TarWriter if path.suffix == ".tar" else _FolderWriter)(path, tell)


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
        text = self._own(_MANIFEST)
        try:
            form = json.loads(text).get("form")
            if isinstance(form, int) and form > FORMAT:
                raise _refused(f"its form is {form}, and this tidemill knows {FORMAT}", mend="take a newer tidemill")
            found = Manifest.model_validate_json(text)
        except (ValidationError, ValueError, AttributeError):
            raise _changed(_MANIFEST, "is not what an export writes") from None
        seal = Seal.of(passphrase, found.salt)
        if not seal.vouches(found.salt.encode(), found.passphrase):
            raise _refused("this is not the passphrase of the archive, or its manifest was changed", field="passphrase")
        if not seal.vouches(text, self._own(_WITNESS).decode("ascii", "replace").strip()):
            raise _changed(_MANIFEST, "was changed after the export")
        return found, seal

    def verify(self, manifest: Manifest, tell: Tell = lambda _: None) -> None:
        """Read every byte and compare: each file is listed and as it was written, and no other is there.

        Raises:
            RefusedError: names the first file which is not.
        """
        listing = self._own(_LIST, largest=None)
        if hashlib.sha256(listing).hexdigest() != manifest.list_sha256:
            raise _changed(_LIST, "was changed after the export")
        entries = [Entry.model_validate_json(line) for line in listing.splitlines()]
        self.entries = {entry.name: entry for entry in entries}
        unsafe = next((name for name in self.entries if not safe_name(name)), None)
        if unsafe is not None:
            raise _changed(unsafe, "is no name for a file of an archive")
        found = set(self._names())
        wanted = {_CONTENTS + name for name in self.entries} | _OWN
        if missing := min(wanted - found, default=None):
            raise _changed(missing, "is missing")
        if more := min(found - wanted, default=None):
            raise _changed(more, "was not written by the export")
        for entry in entries:
            self._verify(entry, tell)

    def _verify(self, entry: Entry, tell: Tell) -> None:
        if self._size(_CONTENTS + entry.name) != entry.size:
            raise _changed(_CONTENTS + entry.name, "has another size than the export wrote")
        with self._open(_CONTENTS + entry.name) as source:
            reader = HashedReader(source, entry.size, tell)
            _drain(reader, _CONTENTS + entry.name)
        if reader.sha256 != entry.sha256:
            raise _changed(_CONTENTS + entry.name, "was changed after the export")

    def below(self, prefix: str) -> list[Entry]:
        """Return the files whose names begin with `prefix`, after `verify`."""
        return [entry for name, entry in self.entries.items() if name.startswith(prefix)]

    @contextmanager
    def reading(self, entry: Entry, tell: Tell = lambda _: None) -> Generator[BinaryIO]:
        """Give the bytes of a file once more; at the end of the block they must all have been read, and be the same.

        Raises:
            RefusedError: they are not those which were verified.
        """
        with self._open(_CONTENTS + entry.name) as source:
            reader = HashedReader(source, entry.size, tell)
            try:
                yield cast("BinaryIO", io.BufferedReader(reader, _CHUNK))
            except EOFError:
                raise _changed(_CONTENTS + entry.name, "was cut short meanwhile") from None
            if reader.sha256 != entry.sha256:
                raise _changed(_CONTENTS + entry.name, "was changed meanwhile")

    def read(self, name: str) -> bytes:
        """Return the bytes of a small file, after `verify`."""
        entry = self.entries.get(name)
        if entry is None:
            raise _changed(_CONTENTS + name, "is missing")
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
    buffer = bytearray(_CHUNK)
    try:
        while reader.readinto(buffer):
            pass
    except EOFError:
        raise _changed(name, "is cut short") from None


def _refused(
    message: str, *, field: str = "archive", value: str | None = None, mend: str | None = None
) -> RefusedError:
    return RefusedError(message, field=field, value=value, mend=mend)


def _changed(name: str, how: str) -> RefusedError:
    return RefusedError(f"{name} {how}; nothing was imported", field="archive", mend="copy or export it again")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
