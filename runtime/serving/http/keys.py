"""The valid API keys: the platform's own key, and named keys that can be revoked without a restart.

The file of named keys, written by `key_file`, contains only hashes. A key is 32 random bytes, so its plain SHA-256
cannot be reversed by guessing; a slow hash would slow down every request.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
from dataclasses import dataclass
from pathlib import Path

from ...common.errors import ConfigError
from .key_file import USES, Use, read_keys

_log = logging.getLogger(__name__)

PLATFORM = "platform"
"""Name of the key in the listen settings."""


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A valid key: its name, and its uses."""

    name: str
    may: tuple[Use, ...] = USES


class Keys:
    """The API keys that the server accepts.

    Args:
        token: the platform's key.
        file: the file of named keys, which may be missing; or None.
    """

    def __init__(self, token: str, file: Path | None = None) -> None:
        self._platform = (KnownKey(PLATFORM), hashlib.sha256(token.encode()).digest())
        self._file = file
        self._version: tuple[int, int, int] | None = None
        self._keys: list[tuple[KnownKey, bytes]] = [self._platform]
        self.refresh()

    def find(self, authorization: bytes | None, api_key: bytes | None) -> KnownKey | None:
        """Return the key in the headers `Authorization` or `X-API-Key`, or None.

        `Authorization` is `Bearer KEY`, or `Basic` with the key as the password and any user name: some clients, such
        as MLflow's, can send only that.

        Each call compares all keys in constant time, so that the time does not depend on the keys.
        """
        if authorization is not None:
            scheme, _, credentials = authorization.partition(b" ")
            key = _key_in(scheme.lower(), credentials.strip())
        else:
            key = api_key or b""
        digest = hashlib.sha256(key).digest()
        found: KnownKey | None = None
        for known, known_digest in self._keys:
            if hmac.compare_digest(digest, known_digest):
                found = known
        return found if key else None

    def refresh(self) -> None:
        """Read the file again if it has changed. If it is invalid, the server accepts only the platform's key."""
        if self._file is None:
            return
        try:
            status = self._file.stat()
        except OSError:
            self._version, self._keys = None, [self._platform]
            return
        version = (status.st_mtime_ns, status.st_size, status.st_ino)
        if version == self._version:
            return
        try:
            named = read_keys(self._file)
        except ConfigError as error:
            _log.error(
                "the file of API keys is invalid; only the platform's key is accepted", extra={"error": str(error)}
            )
            named = []
        self._version = version
        self._keys = [self._platform, *((KnownKey(key.name, key.may), bytes.fromhex(key.sha256)) for key in named)]


def _key_in(scheme: bytes, credentials: bytes) -> bytes:
    """Return the key in the credentials of an `Authorization` header; empty if there is none."""
    if scheme == b"bearer":
        return credentials
    if scheme == b"basic":
        try:
            return base64.b64decode(credentials, validate=True).partition(b":")[2]
        except binascii.Error:
            pass
    return b""
