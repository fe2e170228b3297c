"""The labels of captured rows, with their senders. The last label counts; unusable labels are dropped with a reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from datetime import timedelta
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ..capture import KEY, OUTPUT
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
        position: in its segment: of labels that arrived together, the last one counts.
    """

    value: float
    sender: str | None
    received: pd.Timestamp
    problem: LabelProblem | None = None
    position: int = 0

    def is_after(self, other: Label) -> bool:
        """Tell whether this label replaces `other`; the answer does not depend on which one was read first."""
        if self.received != other.received:
            return self.received > other.received
        return self._rank > other._rank

    @property
    def _rank(self) -> tuple[int, str, str, str]:
        return self.position, self.problem or "", repr(self.value), self.sender or ""


class LabelBook:
    """The label of each row, by the hash of its (request_id, row).

    The label that arrived last counts. If the last usable labels of two API keys differ, the row is disputed, until the
    keys agree: a key cannot quietly replace the labels of another. Labels of unknown keys dispute nothing. The order in
    which segments are read does not matter.

    Attributes:
        skipped: number of labels of whole requests and of single outputs, which have no row to join.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self._labels: dict[int, Label] = {}
        # Row -> API key -> its last label, for rows with labels of more than one key.
        self._claims: dict[int, dict[str | None, Label]] = {}

    def __len__(self) -> int:
        return len(self._labels)

    def add(self, table: pa.Table, kept: Callable[[int], bool] = lambda _: True) -> list[int]:
        """Add the labels in `table` for the rows that `kept` accepts; return all labelled rows of the table."""
        given_rows = table.num_rows
        table = labels_of_rows(table)
        self.skipped += given_rows - table.num_rows
        rows: list[int] = keys(table).tolist()
        senders = table[KEY].to_pylist()
        received: list[pd.Timestamp] = table["received_at"].to_pandas().tolist()
        for index, (row, given) in enumerate(zip(rows, table["label"].to_pylist(), strict=True)):
            if kept(row):
                self._add(row, _label(given, senders[index], received[index], index))
        return rows

    def _add(self, row: int, label: Label) -> None:
        before = self._labels.get(row)
        if before is None:
            self._labels[row] = label
            return
        claims = self._claims.get(row)
        if claims is None and label.sender != before.sender:
            claims = self._claims[row] = {before.sender: before}
        if claims is not None:
            own = claims.get(label.sender)
            if own is None or label.is_after(own):
                claims[label.sender] = label
        if label.is_after(before):
            self._labels[row] = label

    def get(self, row: int) -> Label | None:
        """Return the label of `row`, or None."""
        label = self._labels.get(row)
        claims = self._claims.get(row)
        if label is None or claims is None:
            return label
        values = {claim.value for sender, claim in claims.items() if sender and claim.problem is None}
        return label._replace(problem="disputed") if len(values) > 1 else label

    def forget(self, rows: Container[int], age: timedelta) -> None:
        """Drop the labels of all other rows, except those younger than `age`: their rows may still arrive."""
        newest = max(label.received for label in self._labels.values())
        gone = [row for row, label in self._labels.items() if row not in rows and newest - label.received > age]
        for row in gone:
            del self._labels[row]
            self._claims.pop(row, None)


def labels_of_rows(table: pa.Table) -> pa.Table:
    """Return only the labels of rows, without those of whole requests and of single outputs."""
    return table.filter(pc.field("row").is_valid() & pc.field(OUTPUT).is_null())


def _label(given: Any, sender: str | None, received: pd.Timestamp, index: int) -> Label:
    try:
        value = float(given)
    except (TypeError, ValueError, OverflowError):
        return Label(math.nan, sender, received, "not_a_number", index)
    return Label(value, sender, received, None if math.isfinite(value) else "not_finite", index)


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
