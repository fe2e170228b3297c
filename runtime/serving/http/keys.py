"""Who may ask: the platform's own key, and named ones which can be revoked without a restart.

The file of named keys holds hashes only, which `key_file` writes. A key is 32 random bytes, so a plain SHA-256
of it cannot be found by guessing; a slow hash would slow down every request.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from pathlib import Path

from ...common.errors import ConfigError
from .key_file import read_keys

__all__ = ["PLATFORM", "Keys"]

_log = logging.getLogger(__name__)

PLATFORM = "platform"
"""Name of the key in the listen settings."""


class Keys:
    """The keys which open the server.

    Args:
        token: the platform's key.
        file: the file of named keys, or None. It need not exist.
    """

    def __init__(self, token: str, file: Path | None = None) -> None:
        self._own = (PLATFORM, hashlib.sha256(token.encode()).digest())
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._known: list[tuple[str, bytes]] = [self._own]
        self.refresh()

    def name_of(self, authorization: bytes | None, api_key: bytes | None) -> str | None:
        """Return the name of the key in the headers `Authorization: Bearer` or `X-API-Key`, or None.

        Every known key is compared, in constant time: how long it takes tells nothing about any of them.
        """
        if authorization is not None:
            scheme, _, given = authorization.partition(b" ")
            given = given.strip() if scheme.lower() == b"bearer" else b""
        else:
            given = api_key or b""
        digest = hashlib.sha256(given).digest()
        found: str | None = None
        for name, known in self._known:
            if hmac.compare_digest(digest, known):
                found = name
        return found if given else None

    def refresh(self) -> None:
        """Read the file again if it has changed; one that cannot be read opens nothing but the platform's own key."""
        if self._file is None:
            return
        try:
            status = self._file.stat()
        except OSError:
            self._seen, self._known = None, [self._own]
            return
        seen = (status.st_mtime_ns, status.st_size, status.st_ino)
        if seen == self._seen:
            return
        try:
            named = read_keys(self._file)
        except ConfigError as error:
            _log.error(
                "the file of API keys cannot be used; only the platform's key opens", extra={"error": str(error)}
            )
            named = []
        self._seen = seen
        self._known = [self._own, *((key.name, bytes.fromhex(key.sha256)) for key in named)]
