"""Signed verdicts: what a reader accepts, and what an attacker may have written."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidemill.runtime.common.errors import ConfigError
from tidemill.runtime.common.verdicts import Verdict, generate_signing_key, public_key, sign, verify

KEY, OTHER = generate_signing_key(), generate_signing_key()
VERDICT = Verdict(
    repository="flights", commit="a" * 64, branch="main", success=True, path="departures", base="b" * 64,
    files={"departures/x.parquet": "0" * 32}, suite="flights", suite_sha256="c" * 64, judged_at="2026-01-01T00:00:00Z",
)  # fmt: skip
SEALED = sign(VERDICT, KEY)


def test_a_signed_verdict_is_accepted_with_any_of_the_trusted_keys() -> None:
    assert verify(SEALED, [public_key(KEY)]) == VERDICT
    assert verify(SEALED, [public_key(OTHER), public_key(KEY)]) == VERDICT
    assert sign(VERDICT, KEY) == SEALED, "the same verdict has the same bytes"


def test_another_key_or_no_key_is_not_accepted() -> None:
    assert verify(SEALED, [public_key(OTHER)]) is None
    assert verify(SEALED, []) is None
    assert verify(sign(VERDICT, OTHER), [public_key(KEY)]) is None


def test_changed_payloads_are_not_accepted() -> None:
    envelope = json.loads(SEALED)
    forged = VERDICT.model_copy(update={"commit": "d" * 64})
    payload = base64.b64encode(forged.model_dump_json().encode()).decode()
    assert verify(json.dumps({**envelope, "payload": payload}).encode(), [public_key(KEY)]) is None
    assert verify(json.dumps({**envelope, "payloadType": "text/plain"}).encode(), [public_key(KEY)]) is None
    # A signature of the bare payload, without the type and length that DSSE signs.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    bare = Ed25519PrivateKey.from_private_bytes(base64.b64decode(KEY)).sign(base64.b64decode(envelope["payload"]))
    signatures = [{"keyid": "x", "sig": base64.b64encode(bare).decode()}]
    assert verify(json.dumps({**envelope, "signatures": signatures}).encode(), [public_key(KEY)]) is None


@given(st.integers(0, len(SEALED) * 8 - 1))
@settings(deadline=None, max_examples=300)
def test_no_flipped_bit_gives_another_verdict(bit: int) -> None:
    changed = bytearray(SEALED)
    changed[bit // 8] ^= 1 << bit % 8
    assert verify(bytes(changed), [public_key(KEY)]) in (None, VERDICT)


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(
    lambda value: json.dumps({"payloadType": "application/vnd.tidemill.verdict+json", "payload": value,
                              "signatures": value}).encode()))  # fmt: skip
@settings(deadline=None)
def test_any_bytes_are_refused_without_an_exception(envelope: bytes) -> None:
    assert verify(envelope, [public_key(KEY)]) is None


def test_deep_json_is_refused() -> None:
    assert verify(b"[" * 100_000, [public_key(KEY)]) is None


@pytest.mark.parametrize("text", ["", "x", "AAAA", "é"])
def test_a_key_that_is_none_is_named_and_a_private_one_is_not_shown(text: str) -> None:
    with pytest.raises(ConfigError, match="verdict_keys"):
        verify(SEALED, [text])
    with pytest.raises(ConfigError, match="not an Ed25519 private key") as refused:
        public_key(f"secret-{text}")
    assert "secret" not in str(refused.value)
