"""`MigrationSource` and `MigrationDestination`: what `export` reads from a target and `import` writes to one.

This module and the modules `migration` of the targets import no Pulumi.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol


@dataclass(frozen=True)
class LakeServer:
    """A running lakeFS server.

    Attributes:
        url: its URL, without a trailing slash.
        key_id, secret: its key pair.
    """

    url: str
    key_id: str
    secret: str


class Store(Protocol):
    """An object store, or the objects of one below a prefix. Names are relative paths with `/`."""

    def names(self) -> Iterator[str]:
        """Yield the names of all objects, sorted within their folders."""
        ...

    def open(self, name: str) -> AbstractContextManager[tuple[BinaryIO, int]]:
        """Open an object; give its bytes, as of this moment, and their number.

        Raises:
            NotFoundError: the object no longer exists.
        """
        ...

    def write(self, name: str, source: BinaryIO, size: int) -> None:
        """Write `size` bytes of `source` as one object, completely or not at all."""
        ...

    def sha256(self, name: str) -> str | None:
        """Return the hash of an object that an earlier attempt wrote, or None if there is none or it is unknown."""
        ...


class MigrationSource(Protocol):
    """A stack whose contents are read while it stays up."""

    def lake(self) -> AbstractContextManager[LakeServer]:
        """Give the lakeFS server.

        Raises:
            UnreachableError: it does not run.
        """
        ...

    def objects(self, namespace: str) -> Store:
        """Return the objects of one repository, by its storage namespace."""
        ...

    def relative(self, namespace: str, address: str) -> str | None:
        """Return the name in `objects(namespace)` of the object at a physical address, or None if it is elsewhere."""
        ...

    def store(self, name: str) -> Store | None:
        """Return the object store `name`, or None if the stack has none of that name."""
        ...

    def database(self, name: str) -> AbstractContextManager[str]:
        """Give the SQLAlchemy URL of a copy or view of the database `name` that does not change."""
        ...

    def secrets(self) -> Mapping[str, str]:
        """Return the secrets that move with the contents: name -> value."""
        ...

    def jobs(self) -> Mapping[str, str]:
        """Return the jobs that succeeded: name -> digest of their triggers."""
        ...


class MigrationDestination(Protocol):
    """A stack whose contents are written; they become visible with `finish`.

    Call `obstacle`, then `begin`, then the methods that write, then `finish`.
    """

    def obstacle(self) -> str | None:
        """Return the reason why an import is impossible here (such as an existing folder), or None."""
        ...

    def lake_version(self) -> str | None:
        """Return the version of lakeFS here, or None if unknown."""
        ...

    def begin(self, archive: str) -> bool:
        """Prepare to write the contents of `archive`, an identifier.

        Returns:
            Whether this resumes an interrupted attempt with the same archive.
        """
        ...

    def place(self) -> str:
        """Return where an unfinished attempt is kept, for people."""
        ...

    def secret(self, name: str, value: str) -> None:
        """Write a secret."""
        ...

    def store(self, name: str) -> Store:
        """Return the object store `name`; create it if needed."""
        ...

    def namespace(self, repository: str) -> str:
        """Return the storage namespace of a repository."""
        ...

    def objects(self, repository: str) -> Store:
        """Return the objects in that namespace."""
        ...

    def load_lake(self, dump: Path) -> None:
        """Load `dump`, a file for `lakefs kv load`, into the new key-value store of lakeFS."""
        ...

    def lake(self) -> AbstractContextManager[LakeServer]:
        """Give a lakeFS server on the written contents, with the written key pair."""
        ...

    def database(self, name: str) -> str:
        """Return the SQLAlchemy URL of the empty database `name`; remove that of an earlier attempt."""
        ...

    def job(self, name: str, digest: str) -> None:
        """Record that a job succeeded."""
        ...

    def finish(self) -> None:
        """Make all that was written the contents of the stack."""
        ...
