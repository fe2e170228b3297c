"""A problem of a stack config on its target. Imports no Pulumi."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """A value of a stack config that is missing or wrong on its target.

    Attributes:
        path: keys below `tidemill:stack` that lead to it.
        message: what is wrong, one sentence without a full stop.
        value: the value found there, or None.
        hint: how to fix it, an imperative sentence without a full stop.
    """

    path: tuple[str | int, ...]
    message: str
    value: object | None
    hint: str
