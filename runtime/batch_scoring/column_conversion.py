"""Columns of a file as a model's contract wants them, checked a batch at a time; what does not fit is named.

What a value may be is what the model server takes, told by Arrow's types: an integer may come in a column of floats as
long as it is one, text of a CSV file is read as the contract means it, NaN is null, and infinite numbers are refused.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute

from ..common.errors import UserError
from ..serving import FIRST_TIME, LAST_TIME, Column, Contract, InvalidValueError
from .inputs import InputFile

__all__ = ["ColumnConverter"]

pc: Any = pyarrow.compute  # its functions are made when it is imported, which no type checker sees

_INTEGERS, _FLOATS = ("integer", "long"), ("float", "double")
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_UTC = pa.timestamp("us", tz="UTC")


class _InvalidRowError(Exception):
    """The value at `row` of a column does not fit."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


class ColumnConverter:
    """How the columns of one file become those of a contract.

    Args:
        contract: what the model takes.
        part: the file.
        kept: columns which are carried to the result; where the contract tells its columns by position alone, these
            are not among them.

    Attributes:
        columns: the columns of the file which are needed.

    Raises:
        UserError: the file lacks columns; names one.
    """

    def __init__(self, contract: Contract, part: InputFile, kept: Collection[str] = ()) -> None:
        self._contract = contract
        self._part = part
        self._by_position: Sequence[str] | None = None
        have = set(part.columns)
        missing = [column.name for column in contract.columns if column.name not in have]
        if missing and (found := _positions(contract, [name for name in part.columns if name not in kept])):
            self._by_position = found
            self.columns: tuple[str, ...] = tuple(found)
            return
        lacking = [column.name for column in contract.columns if column.required and column.name not in have]
        if lacking:
            raise self._lacks(lacking)
        self.columns = tuple(column.name for column in contract.columns if column.name in have)

    def _lacks(self, names: list[str]) -> UserError:
        close = difflib.get_close_matches(names[0], self._part.columns, n=1)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return UserError(
            f"lacks the column {names[0]}{more}, which the model needs",
            field=self._part.name,
            hint=f"is it {close[0]}? Rename it" if close else f"it has {', '.join(self._part.columns[:20]) or 'none'}",
        )

    def __call__(self, batch: pa.RecordBatch, first_row: int) -> pa.RecordBatch:
        """Return `batch`, which has at least `columns`, with exactly the contract's columns and types.

        Args:
            batch: rows of the file.
            first_row: the row of the file which is its first, counted from 1.

        Raises:
            UserError: a value does not fit; names file, row and column.
        """
        contract = self._contract
        if self._by_position is not None and contract.is_tensor:
            tensor = contract.columns[0]
            flat = Column(tensor.name, "tensor", dtype=tensor.dtype, shape=(-1,))
            kind = contract.schema.types[0].value_type
            parts = [self._fitted(flat, kind, batch.column(name), name, first_row) for name in self._by_position]
            return pa.RecordBatch.from_arrays([_rows_of(parts)], schema=contract.schema)
        names = self._by_position or contract.names
        arrays: list[pa.Array] = []
        for column, kind, name in zip(contract.columns, contract.schema.types, names, strict=True):
            if name in self.columns:
                arrays.append(self._fitted(column, kind, batch.column(name), name, first_row))
            else:
                arrays.append(pa.nulls(batch.num_rows, kind))
        return pa.RecordBatch.from_arrays(arrays, schema=contract.schema)

    def _fitted(self, column: Column, kind: pa.DataType, array: pa.Array, name: str, first_row: int) -> pa.Array:
        try:
            return _fit(column, kind, _plain(array), is_text=self._part.is_text)
        except _InvalidRowError as error:
            where = f"{self._part.name}, row {first_row + error.row}, column {name}"
            raise UserError(f"wants {column.expected}, got {error}", field=where) from None


def _positions(contract: Contract, names: list[str]) -> list[str] | None:
    """Return the file's columns in the contract's order, where it has no names for them or is one matrix."""
    if contract.is_tensor:
        first = contract.columns[0]
        matrix = len(contract.columns) == 1 and len(first.shape) == 2
        return names if matrix and names and first.shape[1] in (-1, len(names)) else None
    return names if not contract.named and len(names) == len(contract.columns) else None


def _plain(array: pa.Array) -> pa.Array:
    """Return `array` without the ways in which Arrow can say the same values: dictionaries, views, extensions."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(array.storage)
    if pa.types.is_dictionary(kind):
        return _plain(array.cast(kind.value_type))
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return array.cast(pa.string())
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        return array.cast(pa.binary())
    return array


def _fit(column: Column, kind: pa.DataType, array: pa.Array, *, is_text: bool) -> pa.Array:
    if pa.types.is_null(array.type):
        fitted = pa.nulls(len(array), kind)
    elif column.kind == "tensor":
        fitted = _tensor(column, kind, array, is_text=is_text)
    elif column.kind == "json":
        fitted = _json(column, array, is_text=is_text)
    elif column.kind in _FLOATS or column.kind in _INTEGERS:
        fitted = _number(column, kind, array, is_text=is_text)
    elif column.kind == "datetime":
        fitted = _time(array)
    elif is_text and column.kind in ("boolean", "binary"):
        fitted = _read(column, array)
    else:
        wanted = {"boolean": pa.types.is_boolean, "string": pa.types.is_string, "binary": pa.types.is_binary}
        if not wanted[column.kind](array.type):
            _refuse_type(array)
        fitted = array
    if column.required and fitted.null_count:
        raise _InvalidRowError(_first(fitted.is_null()), "null")
    return fitted


def _number(column: Column, kind: pa.DataType, array: pa.Array, *, is_text: bool) -> pa.Array:
    of = array.type
    if is_text and pa.types.is_string(of):
        array = _cast(pc.utf8_trim_whitespace(array), pa.float64() if column.kind in _FLOATS else kind, "other text")
    elif not (pa.types.is_integer(of) or pa.types.is_floating(of) or pa.types.is_decimal(of)):
        _refuse_type(array)
    if pa.types.is_floating(array.type):
        # NaN is how a missing number is said where there is no null.
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    if column.kind in _INTEGERS:
        return _cast(array, kind, "a number which is none, or out of its range")
    # As Python does it: an integer becomes the nearest float.
    fitted = array.cast(kind, safe=False)
    infinite = pc.fill_null(pc.is_inf(fitted), False)
    if pc.any(infinite).as_py():
        raise _InvalidRowError(_first(infinite), "a number which is out of its range")
    return fitted


def _time(array: pa.Array) -> pa.Array:
    of = array.type
    if pa.types.is_string(of):
        try:
            fitted = array.cast(_UTC)
        except pa.ArrowInvalid:
            # Without an offset it is UTC, as in columns of times without a zone.
            fitted = _cast(array, pa.timestamp("us"), "text which is no time").cast(_UTC)
    elif pa.types.is_timestamp(of) or pa.types.is_date(of):
        given = array if pa.types.is_timestamp(of) else array.cast(pa.timestamp("ms"))
        fitted = _cast(given, pa.timestamp("us", tz=given.type.tz), "a time out of range").cast(_UTC)
    else:
        _refuse_type(array)
    ends: list[tuple[datetime, Callable[..., Any]]] = [(FIRST_TIME, pc.less), (LAST_TIME, pc.greater_equal)]
    for end, beyond in ends:
        outside = pc.fill_null(beyond(fitted, pa.scalar(end, _UTC)), False)
        if pc.any(outside).as_py():
            raise _InvalidRowError(_first(outside), "a time which is not of 1678 to 2261")
    return fitted


def _read(column: Column, array: pa.Array) -> pa.Array:
    """Return text of a CSV file as the column means it."""
    if column.kind == "boolean":
        return _cast(array, pa.bool_(), "other text")
    return pa.array(_each(column, array.to_pylist()), pa.binary())


def _json(column: Column, array: pa.Array, *, is_text: bool) -> pa.Array:
    values: list[Any] = array.to_pylist()
    is_document = is_text or (column.spec or {}).get("type") != "any"
    if pa.types.is_string(array.type) and is_document:
        for row, value in enumerate(values):
            try:
                values[row] = None if value is None else json.loads(value)
            except ValueError:
                raise _InvalidRowError(row, "text which is no JSON") from None
    return pa.array([None if value is None else json.dumps(value) for value in _each(column, values)], pa.string())


def _each(column: Column, values: list[Any]) -> list[Any]:
    fitted: list[Any] = []
    for row, value in enumerate(values):
        try:
            fitted.append(None if value is None else column.convert(value))
        except InvalidValueError as error:
            raise _InvalidRowError(row, f"what does not fit ({error})") from None
    return fitted


def _tensor(column: Column, kind: pa.DataType, array: pa.Array, *, is_text: bool) -> pa.Array:
    """Return lists, nested as deep as the shape says; every row has the same sizes."""
    if len(column.shape) == 1:
        return _leaf(column, kind, array, is_text=is_text)
    level, depth = array, len(column.shape) - 1
    each = 1  # values of this level in one row
    for position, size in enumerate(column.shape[1:]):
        if not any(is_one(level.type) for is_one in _LISTS):
            _refuse_type(array)
        if level.null_count:
            raise _InvalidRowError(_first(level.is_null()) // each, "null")
        lengths = pc.list_value_length(level)
        wanted = size if size >= 0 else lengths[0].as_py()
        other = pc.not_equal(lengths, wanted)
        if pc.any(other).as_py():
            raise _InvalidRowError(_first(other) // each, f"another number of values in dimension {position + 1}")
        level = _plain(pc.list_flatten(level))
        each *= max(wanted, 1)
    if pa.types.is_nested(level.type):
        _refuse_type(array)
    leaf = kind
    for _ in range(depth):
        leaf = leaf.value_type
    try:
        _leaf(column, leaf, level, is_text=False)
    except _InvalidRowError as error:
        raise _InvalidRowError(error.row // each, str(error)) from None
    return array.cast(kind, safe=False)


def _leaf(column: Column, kind: pa.DataType, values: pa.Array, *, is_text: bool) -> pa.Array:
    of = values.type
    if values.null_count:
        raise _InvalidRowError(_first(values.is_null()), "null")
    if pa.types.is_string(kind) or pa.types.is_boolean(kind):
        if is_text and pa.types.is_boolean(kind):
            return _cast(values, kind, "other text")
        if of != kind:
            _refuse_type(values)
        return values
    number = Column(column.name, "double" if pa.types.is_floating(kind) else "long")
    fitted = _number(number, kind, values, is_text=is_text)
    if fitted.null_count:
        raise _InvalidRowError(_first(fitted.is_null()), "a number which is not finite")
    return fitted


def _rows_of(columns: list[pa.Array]) -> pa.Array:
    """Return the rows of a matrix, given by its columns, as lists."""
    if pa.types.is_string(columns[0].type):
        return pa.array([list(row) for row in zip(*(column.to_pylist() for column in columns), strict=True)])
    matrix = np.column_stack([column.to_numpy(zero_copy_only=False) for column in columns])
    offsets = np.arange(len(matrix) + 1, dtype=np.int32) * len(columns)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(matrix.reshape(-1), columns[0].type))


def _cast(array: pa.Array, kind: pa.DataType, otherwise: str) -> pa.Array:
    # What is finer than a microsecond is cut off.
    options = pc.CastOptions(kind, allow_time_truncate=True)
    try:
        return array.cast(options=options)
    except pa.ArrowInvalid:
        # The first which cannot be cast, by halves.
        low, high = 0, len(array)
        while high - low > 1:
            middle = (low + high) // 2
            try:
                array.slice(low, middle - low).cast(options=options)
                low = middle
            except pa.ArrowInvalid:
                high = middle
        raise _InvalidRowError(low, otherwise) from None


def _first(marks: pa.Array) -> int:
    return int(pc.index(marks, True).as_py())


def _refuse_type(array: pa.Array) -> NoReturn:
    raise _InvalidRowError(
        _first(array.is_valid()) if array.null_count < len(array) else 0, f"values of type {array.type}"
    )
