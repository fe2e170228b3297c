"""The labels of captured rows, with their senders. The last label counts; unusable labels are dropped with a reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from datetime import timedelta
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from ..capture import KEY
from ..common.target import LabelProblem, Target
from .segment_reader import keys

UNKNOWN = "unknown"
"""Stands for the API key of rows that an earlier release captured without one."""


class Label(NamedTuple):
    """A label of one row.

    Attributes:
        value: NaN if it is not a number.
        sender: name of the API key that sent it, or None if it is unknown.
        received: when it arrived.
        problem: why it cannot be used, or None.
    """

    value: float
    sender: str | None
    received: pd.Timestamp
    problem: LabelProblem | None = None


class LabelBook:
    """The label of each row, by the hash of its (request_id, row).

    The label that arrived last counts. Different labels from two API keys are disputed, until the two keys agree: a key
    cannot quietly replace the labels of another. Labels of unknown keys dispute nothing.
    """

    def __init__(self) -> None:
        self._labels: dict[int, Label] = {}
        # Row -> API key -> its last label, for rows with labels of more than one key.
        self._claims: dict[int, dict[str, float]] = {}

    def __len__(self) -> int:
        return len(self._labels)

    def add(self, table: pa.Table, kept: Callable[[int], bool] = lambda _: True) -> list[int]:
        """Add the labels in `table` for the rows that `kept` accepts; return all rows of the table."""
        rows: list[int] = keys(table).tolist()
        senders = table[KEY].to_pylist()
        received: list[pd.Timestamp] = table["received_at"].to_pandas().tolist()
        for index, (row, given) in enumerate(zip(rows, table["label"].to_pylist(), strict=True)):
            if kept(row):
                self._add(row, _label(given, senders[index], received[index]))
        return rows

    def _add(self, row: int, label: Label) -> None:
        before = self._labels.get(row)
        if before is not None and label.received < before.received:
            before, label = label, before
        if before is not None and before.problem is None and label.problem is None:
            claims = self._claims.get(row)
            if before.sender and label.sender and (claims or before.sender != label.sender):
                claims = self._claims.setdefault(row, {before.sender: before.value})
                claims[label.sender] = label.value
        self._labels[row] = label

    def get(self, row: int) -> Label | None:
        """Return the label of `row`, or None."""
        label = self._labels.get(row)
        if label is not None and row in self._claims and len(set(self._claims[row].values())) > 1:
            return label._replace(problem="disputed")
        return label

    def forget(self, rows: Container[int], age: timedelta) -> None:
        """Drop the labels of all other rows, except those younger than `age`: their rows may still arrive."""
        newest = max(label.received for label in self._labels.values())
        gone = [row for row, label in self._labels.items() if row not in rows and newest - label.received > age]
        for row in gone:
            del self._labels[row]
            self._claims.pop(row, None)


def _label(given: Any, sender: str | None, received: pd.Timestamp) -> Label:
    try:
        value = float(given)
    except (TypeError, ValueError, OverflowError):
        return Label(math.nan, sender, received, "not_a_number")
    return Label(value, sender, received, None if math.isfinite(value) else "not_finite")


def is_number(given: Any) -> bool:
    """Tell whether a label is a finite number."""
    try:
        return math.isfinite(float(given))
    except (TypeError, ValueError, OverflowError):
        return False


def problem_of(label: Label, target: Target | None, *, allow_new: bool) -> LabelProblem | None:
    """Return why `label` is not used, or None.

    Args:
        label: the label.
        target: the contract of the labels, or None if it is unknown.
        allow_new: use labels of classes that are not in the contract.
    """
    if label.problem is not None or target is None or allow_new:
        return label.problem
    return target.problem(label.value)
