"""What a stack's contents are read from and written to when they move; each target gives its own two ends.

Imports no Pulumi, and neither do the modules `ends` of the targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

__all__ = ["LakeServer", "NewEnds", "OldEnds", "Store"]


@dataclass(frozen=True)
class LakeServer:
    """A lakeFS server which answers.

    Attributes:
        url: where it answers, without a trailing slash.
        key_id, secret: its key pair.
    """

    url: str
    key_id: str
    secret: str


class Store(Protocol):
    """An object store, or the part of one below a prefix. Names are relative, with `/` between their parts."""

    def names(self) -> Iterator[str]:
        """Yield the names of all objects, sorted within their folders."""
        ...

    def open(self, name: str) -> AbstractContextManager[tuple[BinaryIO, int]]:
        """Give the object's bytes and how many they are, as they are at this moment.

        Raises:
            NotFoundError: it is gone.
        """
        ...

    def write(self, name: str, source: BinaryIO, size: int) -> None:
        """Write `size` bytes of `source` as one object, whole or not at all."""
        ...

    def sha256(self, name: str) -> str | None:
        """Return the hash of an object which an earlier attempt wrote; None where there is none, or it is not known."""
        ...


class OldEnds(Protocol):
    """Where the contents of a stack are read; the stack stays up meanwhile."""

    def lake(self) -> AbstractContextManager[LakeServer]:
        """Give the lake's server.

        Raises:
            UnreachableError: it does not run.
        """
        ...

    def objects(self, namespace: str) -> Store:
        """Return the store of one repository's objects, which lakeFS calls its storage namespace."""
        ...

    def relative(self, namespace: str, address: str) -> str | None:
        """Return the name in `objects(namespace)` of the object at a physical address; None where it lies elsewhere."""
        ...

    def store(self, name: str) -> Store | None:
        """Return the object store `name`; None where the stack has none of that name."""
        ...

    def database(self, name: str) -> AbstractContextManager[str]:
        """Give the SQLAlchemy URL of a copy or a view of the database `name` which nobody changes meanwhile."""
        ...

    def secrets(self) -> Mapping[str, str]:
        """Return the secrets which move with the contents: name -> value."""
        ...

    def jobs(self) -> Mapping[str, str]:
        """Return the jobs which ran to a good end: name -> digest of what triggers them."""
        ...


class NewEnds(Protocol):
    """Where the contents of a stack are written, which nobody sees until `finish`.

    The order is `obstacle`, `begin`, then all that writes, then `finish`.
    """

    def obstacle(self) -> str | None:
        """Say why nothing can be written here: what is there already. None where there is nothing."""
        ...

    def lake_version(self) -> str | None:
        """Return the version of lakeFS here; None where it is not known."""
        ...

    def begin(self, archive: str) -> bool:
        """Get ready to write what `archive`, an identifier, holds.

        Returns:
            Whether an earlier attempt with the same archive was interrupted, and is gone on with.
        """
        ...

    def place(self) -> str:
        """Return where an unfinished attempt is kept, for people."""
        ...

    def secret(self, name: str, value: str) -> None:
        """Write a secret."""
        ...

    def store(self, name: str) -> Store:
        """Return the object store `name`, made where it is not there."""
        ...

    def namespace(self, repository: str) -> str:
        """Return the storage namespace of a repository of that name."""
        ...

    def objects(self, repository: str) -> Store:
        """Return the store of the objects in that namespace."""
        ...

    def load_lake(self, dump: Path) -> None:
        """Put entries into the lake's key-value store, which is new; `dump` is a file as `lakefs kv load` reads it."""
        ...

    def lake(self) -> AbstractContextManager[LakeServer]:
        """Give the lake's server, running on what was written, with the key pair of the secrets which were written."""
        ...

    def database(self, name: str) -> str:
        """Return the SQLAlchemy URL of the database `name`, which is empty: an earlier attempt's is done away with."""
        ...

    def job(self, name: str, digest: str) -> None:
        """Note down that a job ran to a good end."""
        ...

    def finish(self) -> None:
        """Let the stack have what was written, all at once."""
        ...
