"""What a target says of a stack config which names it, beyond what its own block says by itself. Imports no Pulumi."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Problem"]


@dataclass(frozen=True)
class Problem:
    """Something a stack config lacks, or has too much of, on its target.

    Attributes:
        path: keys below `tidemill:stack` which lead to it.
        message: what is wrong, one sentence without a full stop.
        value: the value found there, or None.
        hint: what to do about it, an imperative sentence without a full stop.
    """

    path: tuple[str | int, ...]
    message: str
    value: object | None
    hint: str
