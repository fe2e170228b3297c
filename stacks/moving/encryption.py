"""Encrypts the secrets of an archive and signs its manifest, with keys derived from a passphrase.

    keys = ArchiveKeys.derive("correct horse battery staple", ArchiveKeys.new_salt())
    keys.decrypt("secrets.json", keys.encrypt("secrets.json", b"..."))

scrypt derives two keys from the passphrase: one for AES-256-GCM, one for HMAC-SHA-256.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from ...runtime.common.errors import RefusedError, UserError

MIN_PASSPHRASE = 12
"""Minimum length of a passphrase, in characters."""

_SALT = 16
_NONCE = 12
# 64 MB and about a fifth of a second for each guess.
_COST = 2**16
_BLOCK = 8
_MEMORY = 2 * 128 * _COST * _BLOCK


class ArchiveKeys:
    """The keys of an archive; made by `derive`.

    Args:
        key: 64 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher_key = key[:32]
        self._signing_key = key[32:]

    @classmethod
    def derive(cls, passphrase: str, salt: str) -> ArchiveKeys:
        """Derive the keys from `passphrase` and `salt` (hexadecimal).

        Raises:
            UserError: the passphrase is too short.
        """
        if len(passphrase) < MIN_PASSPHRASE:
            raise UserError(f"is shorter than {MIN_PASSPHRASE} characters", field="passphrase", hint="use a longer one")
        return cls(
            hashlib.scrypt(
                passphrase.encode(), salt=bytes.fromhex(salt), n=_COST, r=_BLOCK, p=1, maxmem=_MEMORY, dklen=64
            )
        )

    @staticmethod
    def new_salt() -> str:
        """Return a new salt, hexadecimal."""
        return os.urandom(_SALT).hex()

    def encrypt(self, name: str, data: bytes) -> bytes:
        """Encrypt `data`, bound to its `name` in the archive."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(_NONCE)
        return nonce + AESGCM(self._cipher_key).encrypt(nonce, data, name.encode())

    def decrypt(self, name: str, data: bytes) -> bytes:
        """Decrypt the result of `encrypt`.

        Raises:
            RefusedError: it was encrypted with other keys or another name, or was changed.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            return AESGCM(self._cipher_key).decrypt(data[:_NONCE], data[_NONCE:], name.encode())
        except (InvalidTag, ValueError):
            raise RefusedError("cannot be decrypted: it was changed", field=name) from None

    def sign(self, data: bytes) -> str:
        """Return the signature of `data` (HMAC, hexadecimal)."""
        return hmac.digest(self._signing_key, data, "sha256").hex()

    def verify(self, data: bytes, signature: str) -> bool:
        """Return whether `signature` is the signature of `data`."""
        return hmac.compare_digest(self.sign(data).encode(), signature.encode())
