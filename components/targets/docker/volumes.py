"""A volume as an object store which moves; its files are read and written within a container."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from ....runtime.common.errors import NotFoundError, PlatformError
from .scratch_container import Conversation, Helper

__all__ = ["VolumeStore"]

_CHUNK = 1 << 20


class VolumeStore:
    """The files below `folder`, as the container has it; see `Store`.

    A file which is a SQLite database is read as of one moment, though others write to it.

    Args:
        helper: the container, which runs.
        folder: a path in it.
    """

    def __init__(self, helper: Helper, folder: str) -> None:
        self._helper = helper
        self._folder = folder
        self._opened: Conversation | None = None

    @property
    def _talk(self) -> Conversation:
        if self._opened is None:
            self._opened = self._helper.ask("store", self._folder)
        return self._opened

    def names(self) -> Iterator[str]:
        """See `Store`."""
        with self._asked("names", "") as (answer, _):
            listed = json.loads(answer.read())
        yield from listed

    @contextmanager
    def open(self, name: str) -> Generator[tuple[BinaryIO, int]]:
        """See `Store`."""
        with self._asked("read", name) as (answer, size):
            if size < 0:
                raise NotFoundError("it is gone", field="object", value=name)
            yield answer, size

    def write(self, name: str, source: BinaryIO, size: int) -> None:
        """See `Store`. What came is compared by its hash."""
        digest = hashlib.sha256()
        self._ask("write", name, size)
        left = size
        try:
            while left:
                data = source.read(min(left, _CHUNK))
                if not data:
                    raise PlatformError("not all of it came", field="object", value=name)
                self._talk.send(data)
                digest.update(data)
                left -= len(data)
        except BaseException:
            # What follows would be taken for the rest of this file.
            self._talk.close()
            self._opened = None
            raise
        with self._answered() as (answer, _):
            if answer.read().decode() != digest.hexdigest():
                raise PlatformError("is not what was sent", field="object", value=name)

    def sha256(self, name: str) -> str | None:
        """See `Store`."""
        with self._asked("hash", name) as (answer, _):
            return answer.read().decode() or None

    def _ask(self, kind: str, name: str, size: int = 0) -> None:
        self._talk.send(json.dumps([kind, name, size]).encode() + b"\n")

    @contextmanager
    def _asked(self, kind: str, name: str) -> Generator[tuple[BinaryIO, int]]:
        self._ask(kind, name)
        with self._answered() as answer:
            yield answer

    @contextmanager
    def _answered(self) -> Generator[tuple[BinaryIO, int]]:
        """Give the answer and its size, and read on to its end."""
        size = int(self._talk.line())
        answer = _Answer(self._talk, max(size, 0))
        yield cast("BinaryIO", io.BufferedReader(answer, _CHUNK)), size
        while answer.left and answer.readinto(bytearray(_CHUNK)):
            pass


class _Answer(io.RawIOBase):
    """The next `left` bytes of a conversation."""

    def __init__(self, talk: Conversation, left: int) -> None:
        super().__init__()
        self._talk = talk
        self.left = left

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill some of `buffer`."""
        view = memoryview(cast("bytearray", buffer))
        data = self._talk.read(min(self.left, len(view))) if self.left else b""
        if self.left and not data:
            raise self._talk.ended()
        view[: len(data)] = data
        self.left -= len(data)
        return len(data)
