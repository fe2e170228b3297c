"""Values of clients, as errors show them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidemill.runtime.serving.contract.field_errors import show_value

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800\x00\x1b[31m"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (True, "a boolean: true"),
        (3, "an integer: 3"),
        (10**70, "an integer: 233 bits"),
        (-1.5, "a number: -1.5"),
        (float("inf"), "a number: Infinity"),
        ("Köln", 'a string: "K\\u00f6ln"'),
        ("a\x1b\n\ud800", 'a string: "a\\u001b\\n\\ud800"'),
        ("x" * 60, f'a string: "{"x" * 60}"'),
        ("x" * 61, f'a string: "{"x" * 60}..." (61 characters)'),
        ([], "a list: []"),
        ([1, None, "a"], 'a list: [1, null, "a"]'),
        ([1, 2, 3, 4, 5], "a list: [1, 2, 3, 4, ...]"),
        ([[[[1]]]], "a list: [[[...]]]"),
        ({"a": {"b": [1]}}, 'an object: {"a": {"b": [...]}}'),
        ({str(at): at for at in range(9)}, 'an object: {"0": 0, "1": 1, "2": 2, "3": 3, ...}'),
        (b"\x00\xff", "bytes: b'\\x00\\xff'"),
        (datetime(2013, 7, 1, 12, tzinfo=UTC), "a time: 2013-07-01T12:00:00+00:00"),
    ],
)
def test_a_value_is_shown_with_its_type(value: Any, shown: str) -> None:
    assert show_value(value) == shown


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_every_value_is_shown_shortly_and_without_control_characters(value: Any) -> None:
    shown = show_value(value)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) < 220


def test_large_values_are_shown_shortly() -> None:
    for value in ([["x" * 1_000_000] * 1000] * 1000, {"k" * 100_000: list(range(100_000))}, "\x00" * 1_000_000):
        assert len(show_value(value)) < 220
