"""Encrypts what is secret in an archive, and vouches for all of it, with a passphrase.

seal = Seal.of("correct horse battery staple", Seal.new_salt())
seal.open("secrets.json", seal.close("secrets.json", b"..."))

The passphrase becomes two keys by scrypt and HKDF: one for AES-256-GCM, one for HMAC-SHA-256.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from ...runtime.common.errors import RefusedError, UserError

__all__ = ["SHORTEST", "Seal"]

SHORTEST = 12
"""The fewest characters of a passphrase."""

_SALT = 16
_NONCE = 12
# 64 MB and about a fifth of a second for each guess.
_COST = 2**16
_BLOCK = 8
_MEMORY = 2 * 128 * _COST * _BLOCK


class Seal:
    """The keys which a passphrase gives together with a salt.

    Args:
        key: 64 bytes, from `of`.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = key[:32]
        self._witness = key[32:]

    @classmethod
    def of(cls, passphrase: str, salt: str) -> Seal:
        """Return the keys of `passphrase` with `salt`, hexadecimal.

        Raises:
            UserError: the passphrase is short.
        """
        if len(passphrase) < SHORTEST:
            raise UserError(f"is shorter than {SHORTEST} characters", field="passphrase", hint="take a longer one")
        return cls(
            hashlib.scrypt(
                passphrase.encode(), salt=bytes.fromhex(salt), n=_COST, r=_BLOCK, p=1, maxmem=_MEMORY, dklen=64
            )
        )

    @staticmethod
    def new_salt() -> str:
        """Return a new salt, hexadecimal."""
        return os.urandom(_SALT).hex()

    def close(self, name: str, data: bytes) -> bytes:
        """Encrypt `data`, bound to the `name` it is kept under."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(_NONCE)
        return nonce + AESGCM(self._cipher).encrypt(nonce, data, name.encode())

    def open(self, name: str, data: bytes) -> bytes:
        """Return what `close` was given.

        Raises:
            RefusedError: it was closed with another passphrase or under another name, or was changed.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            return AESGCM(self._cipher).decrypt(data[:_NONCE], data[_NONCE:], name.encode())
        except (InvalidTag, ValueError):
            raise RefusedError("cannot be decrypted: it was changed", field=name) from None

    def witness(self, data: bytes) -> str:
        """Return a code, hexadecimal, which only this passphrase gives for `data`."""
        return hmac.digest(self._witness, data, "sha256").hex()

    def vouches(self, data: bytes, code: str) -> bool:
        """Tell whether `code` is what `witness` gives for `data`."""
        return hmac.compare_digest(self.witness(data).encode(), code.encode())
