"""The refusals of requests that exceed a limit: they name the limit, the size sent, and how to raise the limit."""

from __future__ import annotations

from typing import Literal

from .errors import Problem

LimitName = Literal["body_bytes", "rows", "columns", "text"]

OPTIONS: dict[LimitName, str] = {
    "body_bytes": "--max-body",
    "rows": "--max-rows",
    "columns": "--max-columns",
    "text": "--max-text",
}
"""The option of `tidemill serve` for each limit."""


def exceeds(what: str, limit: int, name: LimitName) -> str:
    """Return the sentence of a refusal.

    Args:
        what: was sent, with its size.
        limit: its maximum.
        name: of the limit.

    >>> exceeds("the body has 9 bytes", 8, "body_bytes").partition("; raise ")[2]
    'serve.limits.body_bytes in the stack config, or --max-body of tidemill serve'
    """
    how = f"raise serve.limits.{name} in the stack config, or {OPTIONS[name]} of tidemill serve"
    return f"{what}; the limit is {limit}; {how}"


def too_large(what: str, limit: int) -> Problem:
    """Return the 413 for a body; `what` says which body, and its size. The connection closes."""
    return Problem(413, exceeds(what, limit, "body_bytes"), headers={"Connection": "close"})


def too_many_rows(rows: int, limit: int) -> Problem:
    """Return the 413 for a request with `rows` rows."""
    return Problem(413, exceeds(f"the request has {rows} rows", limit, "rows"))


def too_many_columns(columns: int, limit: int) -> Problem:
    """Return the 413 for a request with `columns` columns or inputs."""
    return Problem(413, exceeds(f"the request has {columns} columns", limit, "columns"))


def text_too_long(length: int, limit: int) -> str:
    """Return the sentence about a string of `length` characters."""
    return exceeds(f"a string has {length} characters", limit, "text")
