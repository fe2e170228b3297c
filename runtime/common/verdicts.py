"""Signed verdicts: the gate's record of which commits it accepted.

The validation service signs one record per judged commit and keeps it on the branch `tidemill-verdicts` of the same
repository. Anyone with the lake's key can write there, so readers trust only its signature: Ed25519 (RFC
8032) in a DSSE envelope (https://github.com/secure-systems-lab/dsse/blob/master/protocol.md).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field, ValidationError

from .errors import ConfigError
from .settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

VERDICT_BRANCH = "tidemill-verdicts"
"""The branch with the verdicts of its repository."""

VERDICT_LIMIT = 64 * 1024 * 1024
"""Maximum size, in bytes, of a verdict that a reader accepts."""

_PAYLOAD_TYPE = "application/vnd.tidemill.verdict+json"


class Verdict(Settings):
    """The gate's verdict on one commit.

    The gate compares a commit with `base`, the newest commit of the branch that it accepted before, and judges the
    files that differ. So an accepted verdict covers all Parquet files below `path`. It names them with their SHA-256,
    because lakeFS does not check the checksums that its clients declare, and stored bytes can change.
    """

    repository: str
    commit: str = Field(description="Full id of the commit.")
    branch: str = Field(description="The branch into which the commit was merged.")
    success: bool = Field(description="Whether the gate accepted the commit.")
    path: str = Field(description="Folder of the Parquet files that the suite covers; empty for all.")
    base: str | None = Field(default=None, description="The accepted commit that was compared, if any.")
    files: dict[str, str] | None = Field(
        default=None,
        description="Path of each Parquet file below `path` -> SHA-256 of its bytes; None if it was not recorded.",
    )
    judged: list[str] = Field(default_factory=list[str], description="Paths of the files that the gate judged.")
    suite: str = Field(description="Name of the Great Expectations suite.")
    suite_sha256: str | None = Field(default=None, description="SHA-256 of the suite; None if it was not recorded.")
    reasons: list[str] = Field(default_factory=list[str], description="Why the gate refused the commit.")
    judged_at: str = Field(description="Time of the verdict, UTC, ISO 8601.")
    hook: str | None = Field(default=None, description="Identifier of the hook secret that lakeFS sent.")

    def covers(self, path: str) -> bool:
        """Tell whether the suite covers all Parquet files at or below `path`."""
        return is_below(path, self.path)


def is_below(path: str, folder: str) -> bool:
    """Tell whether `path` is `folder` or below it; everything is below the empty folder.

    >>> [is_below(path, "a/b") for path in ("a/b", "a/b/c.parquet", "a", "", "a/bc")]
    [True, True, False, False, False]
    """
    return not folder or path == folder or path.startswith(f"{folder}/")


def verdict_file(commit: str) -> str:
    """Return the path of the commit's verdict on the branch `tidemill-verdicts`."""
    return f"verdicts/{commit}.json"


def generate_signing_key() -> str:
    """Return a new private key: 32 random bytes as base64."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode()


def public_key(signing_key: str) -> str:
    """Return the public key, as base64, of a private key.

    Raises:
        ConfigError: `signing_key` is not a private key; its text is not in the error.
    """
    return base64.b64encode(_private(signing_key).public_key().public_bytes_raw()).decode()


def sign(verdict: Verdict, signing_key: str) -> bytes:
    """Return the verdict's signed envelope, as JSON. The same verdict and key always give the same bytes.

    Raises:
        ConfigError: `signing_key` is not a private key.
    """
    payload = verdict.model_dump_json().encode()
    signature = _private(signing_key).sign(_signed_bytes(payload))
    envelope = {
        "payloadType": _PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": public_key(signing_key), "sig": base64.b64encode(signature).decode()}],
    }
    return json.dumps(envelope).encode()


def verify(envelope: bytes, keys: Iterable[str]) -> Verdict | None:
    """Return the verdict in a signed envelope, or None if no key in `keys` signed it.

    Args:
        envelope: any bytes; they may come from an attacker.
        keys: the trusted public keys, as base64.

    Raises:
        ConfigError: a trusted key is not a public key.
    """
    try:
        found: Any = json.loads(envelope)
        if found["payloadType"] != _PAYLOAD_TYPE:
            return None
        payload = base64.b64decode(found["payload"], validate=True)
        signatures = [
            base64.b64decode(item["sig"], validate=True) for item in cast("list[dict[str, str]]", found["signatures"])
        ]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not _signed_by_any(payload, signatures[:8], tuple(keys)):
        return None
    try:
        return Verdict.model_validate_json(payload)
    except ValidationError:
        return None  # from a later version with other fields


def _signed_by_any(payload: bytes, signatures: list[bytes], keys: tuple[str, ...]) -> bool:
    from cryptography.exceptions import InvalidSignature

    signed = _signed_bytes(payload)
    for key in keys:
        for signature in signatures:
            try:
                _public(key).verify(signature, signed)
            except InvalidSignature:
                continue
            return True
    return False


def _signed_bytes(payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding."""
    kind = _PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _private(text: str) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        return Ed25519PrivateKey.from_private_bytes(base64.b64decode(text, validate=True))
    except ValueError:
        raise ConfigError("not an Ed25519 private key", field="signing key", hint="use 32 bytes as base64") from None


@lru_cache(maxsize=64)
def _public(text: str) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except ValueError:
        raise ConfigError(
            "not an Ed25519 public key", field="verdict_keys", value=text, hint="use 32 bytes as base64"
        ) from None
