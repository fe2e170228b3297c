"""Turns fitted encoders of categories into lookup tables, by transforming every category. Only used in preparation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ..contract.model_contract import Contract
from ..inference.batch import Batch
from .errors import UnsupportedError

UNSEEN = "\x7f a category which was never seen"


@dataclass(eq=False)
class CategoryTable:
    """The features that an encoder makes of the values of one column.

    Attributes:
        column: of the contract.
        keys: the known values of the column.
        rows: the features of each key.
        unknown: the features of a value that is not a key; None if the encoder refuses it.
        null: the features of null; None if the encoder refuses it.
    """

    column: int
    keys: list[Any]
    rows: list[list[float]]
    unknown: list[float] | None
    null: list[float] | None


@dataclass(frozen=True)
class _ProbedColumn:
    """The values to transform for one column of an encoder.

    Attributes:
        column: of the contract.
        keys: values of that column.
        values: the encoder's input for each key.
        unknown: its input for a value that is not a key.
        null: its input for null.
    """

    column: int
    keys: list[Any]
    values: list[Any]
    unknown: Any
    null: Any


class EncoderProbe:
    """Finds the lookup tables of an encoder; each of its features must depend on one column only.

    Args:
        contract: of the model.
        row: a row that the model accepts, for the columns that the encoder does not see.
        encoder: fitted.
    """

    def __init__(self, contract: Contract, row: tuple[Any, ...], encoder: Any) -> None:
        self._contract = contract
        self._row = row
        self._encoder = encoder
        self._columns: list[_ProbedColumn] = []
        self._takes_frame = True

    def tables_of_columns(self, columns: Sequence[tuple[int, Any]]) -> list[CategoryTable]:
        """Return one table per column. Each item of `columns` is (position in the contract, fill value for null)."""
        for (column, fill), categories in zip(columns, self._encoder.categories_, strict=True):
            kind = self._contract.columns[column].kind
            keys = [_key(key, kind) for key in categories.tolist() if not _is_missing(key)]
            if not keys:
                raise UnsupportedError(f"column {self._contract.columns[column].name} has no categories")
            self._columns.append(_ProbedColumn(column, keys, keys, _unseen(keys, kind), fill))
        return self._tables()

    def tables_of_tables(self, features: Sequence[tuple[CategoryTable, int]]) -> list[CategoryTable]:
        """Return a table for each of `features`: pairs of an earlier table and a position in its rows."""
        self._takes_frame = False
        for table, position in features:
            values = [row[position] for row in table.rows]
            unknown, null = (None if row is None else row[position] for row in (table.unknown, table.null))
            self._columns.append(_ProbedColumn(table.column, table.keys, values, unknown, null))
        tables = self._tables()
        for table, (before, _) in zip(tables, features, strict=True):
            # A value that the first encoder refuses never gets here.
            table.unknown = None if before.unknown is None else table.unknown
            table.null = None if before.null is None else table.null
        return tables

    def _tables(self) -> list[CategoryTable]:
        longest = max(len(probed.keys) for probed in self._columns)
        # All columns in one call: each row has the next category of each column.
        known = self._transform(
            [[probed.values[index % len(probed.values)] for probed in self._columns] for index in range(longest)]
        )
        unknown = self._transform_each([probed.unknown for probed in self._columns])
        null = self._transform_each([probed.null for probed in self._columns])
        tables: list[CategoryTable] = []
        start = 0
        for position, (probed, width) in enumerate(zip(self._columns, self._widths(), strict=True)):
            part = slice(start, start + width)
            start += width
            column = self._contract.columns[probed.column]
            # A required float column refuses null, but accepts NaN.
            nullable = not column.required or column.kind in ("float", "double")
            of_unknown, of_null = unknown[position], null[position] if nullable else None
            tables.append(
                CategoryTable(
                    probed.column,
                    probed.keys,
                    cast("list[list[float]]", known[: len(probed.keys), part].tolist()),
                    None if of_unknown is None else of_unknown[part].tolist(),
                    None if of_null is None else of_null[part].tolist(),
                )
            )
        return tables

    def _widths(self) -> list[int]:
        """Return the number of features of each column."""
        count = len(self._columns)
        kind = type(self._encoder).__name__
        if kind == "OneHotEncoder":
            return [int(width) for width in self._encoder._n_features_outs]
        if kind == "TargetEncoder":
            # One for each class, if there are more than two.
            return [len(self._encoder.encodings_) // count] * count
        return [1] * count

    def _transform_each(self, values: Sequence[Any]) -> list[np.ndarray[Any, Any] | None]:
        """Return the features of one value in each column; None for the values that the encoder refuses."""
        try:
            return [self._transform([values])[0]] * len(values)
        except (ValueError, TypeError):
            pass
        found: list[np.ndarray[Any, Any] | None] = []
        for position, value in enumerate(values):
            row = [probed.values[0] for probed in self._columns]
            row[position] = value
            try:
                found.append(self._transform([row])[0])
            except (ValueError, TypeError):
                found.append(None)
        return found

    def _transform(self, values: Sequence[Sequence[Any]]) -> np.ndarray[Any, Any]:
        given = self._frame(values) if self._takes_frame else np.array(values, dtype=np.float64)
        given = self._encoder.transform(given)
        if hasattr(given, "toarray"):
            given = given.toarray()
        return np.asarray(given, dtype=np.float64)

    def _frame(self, values: Sequence[Sequence[Any]]) -> Any:
        """Return rows of the encoder's columns with exactly the types that it was trained with."""
        import pandas as pd

        columns = [probed.column for probed in self._columns]
        rows: list[tuple[Any, ...]] = []
        for chosen in values:
            row = list(self._row)
            for column, value in zip(columns, chosen, strict=True):
                row[column] = value
            rows.append(tuple(row))
        frame = cast("pd.DataFrame", self._contract.to_pandas(Batch(len(rows), rows))).iloc[:, columns]
        names = getattr(self._encoder, "feature_names_in_", None)
        if names is None or any(probed.null is not None for probed in self._columns):
            text = any(self._contract.columns[column].kind == "string" for column in columns)
            return frame.to_numpy(dtype=object if text else None)
        return frame.set_axis(list(names), axis=1)


def _is_missing(key: Any) -> bool:
    return key is None or (isinstance(key, float) and np.isnan(key))


def _key(key: Any, kind: str) -> Any:
    """Return a category in the type that the rows of a batch have."""
    if kind == "string" and isinstance(key, str):
        return key
    if kind == "boolean" and isinstance(key, bool | int):
        return bool(key)
    if kind in ("integer", "long") and isinstance(key, int | float) and key == int(key):
        return int(key)
    if kind in ("float", "double") and isinstance(key, int | float):
        return float(key)
    raise UnsupportedError(f"a category of type {type(key).__name__} in a column of kind {kind}")


def _unseen(keys: Sequence[Any], kind: str) -> Any:
    """Return a value that is not among `keys`, or null if there is none."""
    if kind == "string":
        return UNSEEN
    if kind == "boolean":
        return next((value for value in (True, False) if value not in keys), None)
    return max(keys) + 1
