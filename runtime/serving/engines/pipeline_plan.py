"""Turns checked rows into the matrix of numbers that an estimator needs, without pandas or scikit-learn.

`pipeline_plan_builder` makes a plan from the transformers of a fitted pipeline, in preparation. Some columns are used
as numbers, others are looked up in tables of known categories; then features are shifted, scaled or filled. A plan is
stored as plain JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import getitem, itemgetter
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..inference.batch import Values

Matrix = NDArray[np.float64]

_DTYPES: Final = {
    **{f"{sign}int{bits}": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
}
# From this many rows on, column by column is faster than row by row.
_BY_COLUMN: Final = 4


class PipelinePlan:
    """Makes the feature matrix of a batch.

    Args:
        spec: from `PlanDraft.spec`:
            `width`: number of features;
            `tensor`: whether a row is one array with all features;
            `numbers`: [column, feature] pairs, used without a lookup;
            `tables`: one for each lookup: `column`, `name`, its `keys` and their `codes`, and the codes for an
            `unknown` and a `null` value, None if the model refuses them. A code is the value of `feature`. If `hot` is
            true, a code is the feature that is 1 (~f: that feature is 0, and so are the others);
            `operations`: [operation, features or None for all, numbers] in order;
            `finite`: the values that the estimator accepts: `any`, `missing` (NaN but not infinity) or `all`.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._width = int(spec["width"])
        numbers = cast("list[list[int]]", spec["numbers"])
        tables = [_LookupTable(table) for table in spec["tables"]]
        values, hot = [t for t in tables if not t.hot], [t for t in tables if t.hot]
        self._columns = [column for column, _ in numbers]
        self._tables = [*values, *hot]
        self._dense = len(numbers) + len(values)
        self._pick_numbers = _picker(self._columns)
        self._pick_keys = _picker([table.column for table in self._tables])
        order = [feature for _, feature in numbers] + [table.feature for table in values]
        # If the features are already in the order of assembly, nothing is moved.
        self._order = None if order == list(range(self._width)) else np.array(order, dtype=np.intp)
        self._operations = [_operation(*operation) for operation in spec["operations"]]
        self._plain = self._columns == list(range(self._width)) and not tables
        self._tensor = bool(spec["tensor"])
        self._finite = str(spec["finite"])

    def matrix(self, values: Values) -> Matrix:
        """Return the features of each row, in C order.

        Raises:
            ValueError: the model refuses a value; the message does not contain the value.
        """
        if self._tensor:
            assembled = self._from_tensor(values)
        elif isinstance(values, list):
            assembled = self._from_rows(values)
        else:
            assembled = self._from_batch(values)
        matrix = self._arranged(assembled)
        for operation in self._operations:
            operation(matrix)
        self._check(matrix)
        return matrix

    def _from_rows(self, rows: list[tuple[Any, ...]]) -> Matrix:
        if self._plain and len(rows[0]) == self._width:
            return np.array(rows, dtype=np.float64)
        numbers, keys, tables = self._pick_numbers, self._pick_keys, self._tables
        if len(rows) < _BY_COLUMN:
            return np.array([(*numbers(row), *map(getitem, tables, keys(row))) for row in rows], dtype=np.float64)
        count, columns = len(rows), list(zip(*rows, strict=True))
        assembled = np.empty((count, len(self._columns) + len(tables)))
        if self._columns:
            assembled[:, : len(self._columns)] = np.array(numbers(columns), dtype=np.float64).T
        if tables:
            looked_up = (map(table.__getitem__, column) for table, column in zip(tables, keys(columns), strict=True))
            codes = np.fromiter(chain.from_iterable(looked_up), np.float64, count * len(tables))
            assembled[:, len(self._columns) :] = codes.reshape(-1, count).T
        return assembled

    def _from_batch(self, batch: pa.RecordBatch) -> Matrix:
        assembled = np.empty((batch.num_rows, len(self._columns) + len(self._tables)))
        for position, column in enumerate(self._columns):
            assembled[:, position] = numbers_of(batch.column(column))
        for position, table in enumerate(self._tables, len(self._columns)):
            assembled[:, position] = table.codes_of(batch.column(table.column))
        return assembled

    def _from_tensor(self, values: Values) -> Matrix:
        if isinstance(values, list):
            rows = np.array([row[0] for row in values], dtype=np.float64)
        else:
            # The values of all rows, one after another.
            rows = numbers_of(values.column(0).flatten()).astype(np.float64).reshape(values.num_rows, -1)
        return rows if self._plain else np.ascontiguousarray(rows[:, self._columns])

    def _arranged(self, assembled: Matrix) -> Matrix:
        if self._order is None:
            return assembled
        if assembled.shape[1] == self._dense == self._width:
            matrix = np.empty_like(assembled)
            matrix[:, self._order] = assembled
            return matrix
        matrix = np.zeros((len(assembled), self._width))
        matrix[:, self._order] = assembled[:, : self._dense]
        if self._dense < assembled.shape[1]:
            codes = assembled[:, self._dense :].astype(np.intp)
            hit = codes >= 0
            matrix[np.arange(len(codes))[:, None], np.where(hit, codes, ~codes)] = hit
        return matrix

    def _check(self, matrix: Matrix) -> None:
        if self._finite == "any":
            return
        refuse_infinity(matrix)
        if self._finite == "all" and np.isnan(matrix.sum()) and np.isnan(matrix).any():
            raise ValueError("the model does not take a missing value")


class _LookupTable(dict[Any, float]):
    """Maps the values of one column to codes; `__missing__` handles unknown values and null."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        codes = [float(code) for code in spec["codes"]]
        super().__init__(zip(spec["keys"], codes, strict=True))
        self.column = int(spec["column"])
        self.hot = bool(spec["hot"])
        self.feature = -1 if self.hot else int(spec["feature"])
        self._name = str(spec["name"])
        self._unknown: float | None = spec["unknown"]
        self._null: float | None = spec["null"]
        self._codes: Matrix | None = None
        self._text = all(isinstance(key, str) for key in spec["keys"])
        if self._null is not None:
            self[None] = self._null

    def __missing__(self, key: Any) -> float:
        missing = key is None or key != key
        code = self._null if missing else self._unknown
        if code is None:
            raise ValueError(f"column {self._name}: the model does not take {'null' if missing else 'this value'}")
        return code

    def codes_of(self, column: pa.Array[Any]) -> Matrix:
        """Return the codes of a column."""
        if not self._text:
            return np.fromiter(map(self.__getitem__, column.to_pylist()), np.float64, len(column))
        # Text repeats: each distinct value is looked up once.
        encoded = column.dictionary_encode(null_encoding="encode")
        found = np.fromiter(map(self.__getitem__, encoded.dictionary.to_pylist()), np.float64)
        return found[numbers_of(encoded.indices)]


def numbers_of(column: pa.Array[Any]) -> NDArray[Any]:
    """Return the values of a column of numbers or booleans; null becomes NaN.

    Arrow's own `to_numpy` imports pandas, which takes a second and more memory than all the rest here.
    """
    validity, data = column.buffers()
    end = column.offset + len(column)
    if pa.types.is_boolean(column.type):
        values = _bits(data, end)
    else:
        values = np.frombuffer(data, dtype=_DTYPES[str(column.type)], count=end)
    values = values[column.offset :]
    if column.null_count:
        values = np.where(_bits(validity, end)[column.offset :], values, np.nan)
    return values


def _bits(buffer: pa.Buffer, count: int) -> NDArray[Any]:
    return np.unpackbits(np.frombuffer(buffer, dtype=np.uint8), count=count, bitorder="little")


def _picker(positions: Sequence[int]) -> Callable[[Any], tuple[Any, ...]]:
    if not positions:
        return lambda _: ()
    if len(positions) == 1:
        only = positions[0]
        return lambda row: (row[only],)
    return itemgetter(*positions)


def _operation(what: str, features: list[int] | None, numbers: Sequence[float]) -> Callable[[Matrix], None]:
    operand = np.array(numbers, dtype=np.float64)
    change = _OPERATIONS[what]
    if features is None:
        return lambda matrix: change(matrix, operand)
    if features == list(range(features[0], features[-1] + 1)):
        side_by_side = slice(features[0], features[-1] + 1)
        return lambda matrix: change(matrix[:, side_by_side], operand)
    where = np.array(features, dtype=np.intp)

    def apply(matrix: Matrix) -> None:
        part = matrix[:, where]
        change(part, operand)
        matrix[:, where] = part

    return apply


def _fill(part: Matrix, operand: Matrix) -> None:
    np.copyto(part, operand, where=np.isnan(part))


def _round(part: Matrix, _: Matrix) -> None:
    with np.errstate(over="ignore"):
        part[...] = part.astype(np.float32)


def refuse_infinity(part: Matrix, _: Matrix | None = None) -> None:
    """Raise ValueError if `part` contains an infinite value."""
    # The sum is almost always finite, and then all values are.
    if not math.isfinite(part.sum()) and np.isinf(part).any():
        raise ValueError("the model does not take an infinite value")


def _clip(part: Matrix, operand: Matrix) -> None:
    np.clip(part, operand[0], operand[1], out=part)


# In place, and in exactly the order of scikit-learn: one bit decides whether a threshold is reached.
_OPERATIONS: dict[str, Callable[[Matrix, Matrix], Any]] = {
    "subtract": lambda part, operand: np.subtract(part, operand, out=part),
    "divide": lambda part, operand: np.divide(part, operand, out=part),
    "multiply": lambda part, operand: np.multiply(part, operand, out=part),
    "add": lambda part, operand: np.add(part, operand, out=part),
    "clip": _clip,
    "fill": _fill,
    "float32": _round,
    "refuse_infinity": refuse_infinity,
}
