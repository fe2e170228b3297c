"""The headers in which a client can send its API key."""

from __future__ import annotations

import base64

import pytest
import requests
from tidemill.runtime.serving.http.keys import PLATFORM, Keys

REQUESTS = requests.Request("GET", "http://localhost", auth=("key", "key:1")).prepare().headers["Authorization"]


def basic(text: str) -> bytes:
    return b"Basic " + base64.b64encode(text.encode())


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        (b"Bearer key:1", None),
        (b"bearer   key:1 ", None),
        (None, b"key:1"),
        (basic("anyone:key:1"), None),
        (basic(":key:1"), None),
        (b"basic  " + base64.b64encode(b"x:key:1"), None),
        (REQUESTS.encode(), None),
    ],
)
def test_a_key_is_accepted(authorization: bytes | None, api_key: bytes | None) -> None:
    found = Keys("key:1").find(authorization, api_key)
    assert found is not None
    assert found.name == PLATFORM


@pytest.mark.parametrize(
    "authorization",
    [
        b"", b"Bearer", b"Bearer ", b"Bearer other", b"Basic", b"Basic ", b"Basic key:1", b"Basic !", basic("key:1"),
        basic("key:1:"), basic("x:"), basic("x"), basic("x:other"), b"Digest key:1", b"Basic \xff",
        b"Bearer " + base64.b64encode(b"x:key:1"),
    ],
)  # fmt: skip
def test_anything_else_is_no_key(authorization: bytes) -> None:
    assert Keys("key:1").find(authorization, None) is None
    assert Keys("key:1").find(authorization, b"key:1") is None, "the header Authorization counts"
