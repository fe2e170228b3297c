"""A volume as an object store of a migration; a script in a container reads and writes its files."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from ....runtime.common.errors import NotFoundError, PlatformError
from .scratch_container import ContainerProcess, ScratchContainer

_CHUNK = 1 << 20


class VolumeStore:
    """The files below a folder of a container; see `Store`.

    Reading a SQLite database gives a consistent copy, even while others write to it.

    Args:
        container: the running container.
        folder: the path in it.
    """

    def __init__(self, container: ScratchContainer, folder: str) -> None:
        self._container = container
        self._folder = folder
        self._opened: ContainerProcess | None = None

    @property
    def _process(self) -> ContainerProcess:
        if self._opened is None:
            self._opened = self._container.run_script("store", self._folder)
        return self._opened

    def names(self) -> Iterator[str]:
        """See `Store`."""
        with self._response_to("names", "") as (answer, _):
            listed = json.loads(answer.read())
        yield from listed

    @contextmanager
    def open(self, name: str) -> Generator[tuple[BinaryIO, int]]:
        """See `Store`."""
        with self._response_to("read", name) as (answer, size):
            if size < 0:
                raise NotFoundError("no longer exists", field="object", value=name)
            yield answer, size

    def write(self, name: str, source: BinaryIO, size: int) -> None:
        """See `Store`. The hash of the received bytes is compared."""
        digest = hashlib.sha256()
        self._send("write", name, size)
        left = size
        try:
            while left:
                data = source.read(min(left, _CHUNK))
                if not data:
                    raise PlatformError("ended before its size was reached", field="object", value=name)
                self._process.send(data)
                digest.update(data)
                left -= len(data)
        except BaseException:
            # The script would take the next request for the rest of this file.
            self._process.close()
            self._opened = None
            raise
        with self._response() as (answer, _):
            if answer.read().decode() != digest.hexdigest():
                raise PlatformError("was not received as it was sent", field="object", value=name)

    def sha256(self, name: str) -> str | None:
        """See `Store`."""
        with self._response_to("hash", name) as (answer, _):
            return answer.read().decode() or None

    def _send(self, kind: str, name: str, size: int = 0) -> None:
        self._process.send(json.dumps([kind, name, size]).encode() + b"\n")

    @contextmanager
    def _response_to(self, kind: str, name: str) -> Generator[tuple[BinaryIO, int]]:
        self._send(kind, name)
        with self._response() as answer:
            yield answer

    @contextmanager
    def _response(self) -> Generator[tuple[BinaryIO, int]]:
        """Give the response and its size; at the end, skip what was not read."""
        size = int(self._process.line())
        answer = _Response(self._process, max(size, 0))
        yield cast("BinaryIO", io.BufferedReader(answer, _CHUNK)), size
        while answer.left and answer.readinto(bytearray(_CHUNK)):
            pass


class _Response(io.RawIOBase):
    """A stream that ends after the next `left` bytes of a process's output."""

    def __init__(self, process: ContainerProcess, left: int) -> None:
        super().__init__()
        self._process = process
        self.left = left

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: object) -> int:
        """Read into `buffer`; return the number of bytes."""
        view = memoryview(cast("bytearray", buffer))
        data = self._process.read(min(self.left, len(view))) if self.left else b""
        if self.left and not data:
            raise self._process.exit_error()
        view[: len(data)] = data
        self.left -= len(data)
        return len(data)
