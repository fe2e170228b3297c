"""Asks fitted encoders of categories what they give, and keeps it as tables. Only used in preparation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ..contract.model_contract import Contract
from ..inference.batch import Batch

__all__ = ["UNSEEN", "Encoder", "NotKnownError", "Table"]

UNSEEN = "\x7f a category which was never seen"


class NotKnownError(Exception):
    """There is no plan for it, or nothing to compile; the message says for what."""


@dataclass(eq=False)
class Table:
    """What an encoder gives for the values of one column: `rows` of as many features as it makes of it.

    Attributes:
        column: of the contract.
        unknown: for a value which is not among the keys; None where it is refused.
        null: likewise for null.
    """

    column: int
    keys: list[Any]
    rows: list[list[float]]
    unknown: list[float] | None
    null: list[float] | None


@dataclass(frozen=True)
class Asked:
    """A column of an encoder, and what it is asked about.

    Attributes:
        column: of the contract.
        keys: values of that column.
        values: what the encoder sees for each of them.
        unknown: what it sees for a value which is not among them.
        null: what it sees for null.
    """

    column: int
    keys: list[Any]
    values: list[Any]
    unknown: Any
    null: Any


class Encoder:
    """An encoder which is asked: each of its features depends on one of its columns alone.

    Args:
        contract: of the model.
        row: one which the model answers, for the columns which the encoder does not see.
        encoder: fitted.
    """

    def __init__(self, contract: Contract, row: tuple[Any, ...], encoder: Any) -> None:
        self._contract = contract
        self._row = row
        self._encoder = encoder
        self._columns: list[Asked] = []
        self._framed = True

    def of_columns(self, columns: Sequence[tuple[int, Any]]) -> list[Table]:
        """Return a table for each of the contract's `columns`, given with what stands for null there."""
        for (column, fill), categories in zip(columns, self._encoder.categories_, strict=True):
            kind = self._contract.columns[column].kind
            keys = [_key(key, kind) for key in categories.tolist() if not _missing(key)]
            if not keys:
                raise NotKnownError(f"column {self._contract.columns[column].name} has no categories")
            self._columns.append(Asked(column, keys, keys, _unseen(keys, kind), fill))
        return self._tables()

    def of_tables(self, features: Sequence[tuple[Table, int]]) -> list[Table]:
        """Return a table for each feature of other tables, given with its position there."""
        self._framed = False
        for table, position in features:
            values = [row[position] for row in table.rows]
            unknown, null = (None if refused is None else refused[position] for refused in (table.unknown, table.null))
            self._columns.append(Asked(table.column, table.keys, values, unknown, null))
        tables = self._tables()
        for table, (before, _) in zip(tables, features, strict=True):
            # What the first one refuses never gets here.
            table.unknown = None if before.unknown is None else table.unknown
            table.null = None if before.null is None else table.null
        return tables

    def _tables(self) -> list[Table]:
        longest = max(len(asked.keys) for asked in self._columns)
        # All columns at once: the next category of each in each row.
        known = self._ask(
            [[asked.values[index % len(asked.values)] for asked in self._columns] for index in range(longest)]
        )
        unknown = self._each([asked.unknown for asked in self._columns])
        null = self._each([asked.null for asked in self._columns])
        tables: list[Table] = []
        start = 0
        for position, (asked, width) in enumerate(zip(self._columns, self._widths(), strict=True)):
            part = slice(start, start + width)
            start += width
            column = self._contract.columns[asked.column]
            # NaN may come where null may not.
            nullable = not column.required or column.kind in ("float", "double")
            its_unknown, its_null = unknown[position], null[position] if nullable else None
            tables.append(
                Table(
                    asked.column,
                    asked.keys,
                    cast("list[list[float]]", known[: len(asked.keys), part].tolist()),
                    None if its_unknown is None else its_unknown[part].tolist(),
                    None if its_null is None else its_null[part].tolist(),
                )
            )
        return tables

    def _widths(self) -> list[int]:
        count = len(self._columns)
        kind = type(self._encoder).__name__
        if kind == "OneHotEncoder":
            return [int(width) for width in self._encoder._n_features_outs]
        if kind == "TargetEncoder":
            # One a class, where there are more than two.
            return [len(self._encoder.encodings_) // count] * count
        return [1] * count

    def _each(self, values: Sequence[Any]) -> list[np.ndarray[Any, Any] | None]:
        """Return what it gives for one value in each column, None for those which it refuses."""
        try:
            return [self._ask([values])[0]] * len(values)
        except (ValueError, TypeError):
            pass
        found: list[np.ndarray[Any, Any] | None] = []
        for position, value in enumerate(values):
            row = [asked.values[0] for asked in self._columns]
            row[position] = value
            try:
                found.append(self._ask([row])[0])
            except (ValueError, TypeError):
                found.append(None)
        return found

    def _ask(self, values: Sequence[Sequence[Any]]) -> np.ndarray[Any, Any]:
        given = self._frame(values) if self._framed else np.array(values, dtype=np.float64)
        given = self._encoder.transform(given)
        if hasattr(given, "toarray"):
            given = given.toarray()
        return np.asarray(given, dtype=np.float64)

    def _frame(self, values: Sequence[Sequence[Any]]) -> Any:
        """Return rows of the encoder's columns as it was given them in training, of the very types."""
        import pandas as pd

        columns = [asked.column for asked in self._columns]
        rows: list[tuple[Any, ...]] = []
        for chosen in values:
            row = list(self._row)
            for column, value in zip(columns, chosen, strict=True):
                row[column] = value
            rows.append(tuple(row))
        frame = cast("pd.DataFrame", self._contract.to_pandas(Batch(len(rows), rows))).iloc[:, columns]
        names = getattr(self._encoder, "feature_names_in_", None)
        if names is None or any(asked.null is not None for asked in self._columns):
            text = any(self._contract.columns[column].kind == "string" for column in columns)
            return frame.to_numpy(dtype=object if text else None)
        return frame.set_axis(list(names), axis=1)


def _missing(key: Any) -> bool:
    return key is None or (isinstance(key, float) and np.isnan(key))


def _key(key: Any, kind: str) -> Any:
    """Return a category as the rows of a batch have it."""
    if kind == "string" and isinstance(key, str):
        return key
    if kind == "boolean" and isinstance(key, bool | int):
        return bool(key)
    if kind in ("integer", "long") and isinstance(key, int | float) and key == int(key):
        return int(key)
    if kind in ("float", "double") and isinstance(key, int | float):
        return float(key)
    raise NotKnownError(f"a category of the type {type(key).__name__} in a column of the kind {kind}")


def _unseen(keys: Sequence[Any], kind: str) -> Any:
    """Return a value which is not among `keys`; null where there is none."""
    if kind == "string":
        return UNSEEN
    if kind == "boolean":
        return next((value for value in (True, False) if value not in keys), None)
    return max(keys) + 1
