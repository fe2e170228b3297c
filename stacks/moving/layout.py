"""How an archive is laid out: a folder, or one uncompressed tar file, of files listed each with its size and hash.

files/...        the contents
files.jsonl      name, size and SHA-256 of each of them
manifest.json    what they are, with the list's own hash
manifest.hmac    a code of the manifest which only the passphrase gives
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import BinaryIO, cast

__all__ = ["CHUNK", "CONTENTS", "LIST", "MANIFEST", "OWN", "WITNESS", "HashedReader", "Tell", "safe_name"]

CONTENTS = "files/"
LIST = "files.jsonl"
MANIFEST = "manifest.json"
WITNESS = "manifest.hmac"
OWN = frozenset({LIST, MANIFEST, WITNESS})
CHUNK = 1 << 20
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
