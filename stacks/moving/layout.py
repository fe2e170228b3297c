"""The layout of an archive: a folder or an uncompressed tar file.

files/...        the contents
files.jsonl      name, size and SHA-256 of each file of the contents
manifest.json    description of the contents, with the hash of files.jsonl
manifest.hmac    signature of the manifest
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import BinaryIO, cast

CONTENTS = "files/"
LIST = "files.jsonl"
MANIFEST = "manifest.json"
SIGNATURE = "manifest.hmac"
OWN = frozenset({LIST, MANIFEST, SIGNATURE})
CHUNK = 1 << 20
_LONGEST_NAME = 4096

CountBytes = Callable[[int], None]
"""Receives the number of bytes of each read or write."""


def safe_name(name: str) -> bool:
    """Return whether `name` is a relative path that stays inside its folder.

    >>> [safe_name(name) for name in ("lake/a b/c", "", "/etc", "a/../b", "a//b", "./a")]
    [True, False, False, False, False, False]
    """
    parts = name.split("/")
    return 0 < len(name) <= _LONGEST_NAME and "\0" not in name and not any(part in ("", ".", "..") for part in parts)


class HashedReader(io.RawIOBase):
    """Reads exactly `size` bytes of `source` and hashes them."""

    def __init__(self, source: BinaryIO, size: int, count: CountBytes) -> None:
        super().__init__()
        self._source = source
        self._left = size
        self._count = count
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: object) -> int:
        """Read into `buffer`; raise EOFError if `source` ends early."""
        view = memoryview(cast("bytearray", buffer))
        data = self._source.read(min(len(view), self._left)) if self._left else b""
        if self._left and not data:
            raise EOFError
        view[: len(data)] = data
        self._left -= len(data)
        self._hash.update(data)
        self._count(len(data))
        return len(data)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the bytes read so far, hexadecimal."""
        return self._hash.hexdigest()
