"""The committed rows are those that the tests record, and docs/serving.md shows them."""

from __future__ import annotations

from tests.compat import table, test_flavours, test_kinds

MODULES = (test_kinds, test_flavours)


def test_each_row_is_recorded_by_a_test() -> None:
    keys = [key for module in MODULES for key in module.ROWS]
    assert len(set(keys)) == len(keys)
    table.drop_all_but(set(keys))
    assert table.read().keys() == set(keys)


def test_the_page_shows_the_table() -> None:
    text = table.PAGE.read_text(encoding="utf-8")
    assert table.renewed(text) == text, "run `python -m tests.support.documented`"
