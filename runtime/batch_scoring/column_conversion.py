"""Converts the columns of a file to the columns of a model's contract, and names each invalid value.

The accepted values are those of the model server, in Arrow's types: whole floats are accepted as integers, CSV text is
parsed by the type of its column as `pandas.read_csv` does, NaN is null, times without a zone are in UTC, and infinite
numbers are refused. Other columns of the file are ignored.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute

from ..common.errors import UserError
from ..serving import (
    BOOLEAN_CELLS,
    NULL_CELLS,
    NUMBER_CELL,
    Column,
    Contract,
    InvalidValueError,
    absent_columns,
    integer_of_cell,
    is_finer_than_microsecond,
    is_time_out_of_range,
    object_texts,
)
from .inputs import InputFile

pc: Any = pyarrow.compute  # its functions are created at import, so type checkers do not see them

_INTEGERS, _FLOATS = ("integer", "long"), ("float", "double")
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_NULLS = pa.array(sorted(NULL_CELLS))
_UTC = pa.timestamp("us", tz="UTC")
_NUMBER = f"^{NUMBER_CELL}$"


class _InvalidRowError(Exception):
    """The value at `row` of a column is invalid."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


class ColumnConverter:
    """Converts the batches of one file.

    Args:
        contract: the inputs of the model.
        file: the file.
        kept: columns that are copied to the result; they are no inputs if the contract has only positions.

    Attributes:
        columns: the columns of the file that the model needs.
        absent: positions of the optional columns that the file does not have; the model does not get them.

    Raises:
        UserError: the file lacks columns; names one.
    """

    def __init__(self, contract: Contract, file: InputFile, kept: Collection[str] = ()) -> None:
        self._contract = contract
        self._file = file
        self._by_position: Sequence[str] | None = None
        self.absent: frozenset[int] = frozenset()
        available = set(file.columns)
        missing = [column.name for column in contract.columns if column.name not in available]
        if missing and (names := _positional_columns(contract, [name for name in file.columns if name not in kept])):
            self._by_position = names
            self.columns: tuple[str, ...] = tuple(names)
            return
        required = [column.name for column in contract.columns if column.required and column.name not in available]
        if required:
            raise self._missing_columns(required)
        self.columns = tuple(column.name for column in contract.columns if column.name in available)
        self.absent = absent_columns(contract, available)

    def _missing_columns(self, names: list[str]) -> UserError:
        close = difflib.get_close_matches(names[0], self._file.columns, n=1)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return UserError(
            f"lacks the column {names[0]}{more}, which the model requires",
            field=self._file.name,
            hint=f"is it {close[0]}? Rename it" if close else f"it has {', '.join(self._file.columns[:20]) or 'none'}",
        )

    def convert(self, batch: pa.RecordBatch, first_row: int) -> pa.RecordBatch:
        """Return `batch` with exactly the columns and types of the contract.

        Args:
            batch: rows of the file, with at least `columns`.
            first_row: number of its first row in the file, from 1.

        Raises:
            UserError: a value is invalid; names file, row and column.
        """
        contract = self._contract
        if self._by_position is not None and contract.is_tensor:
            tensor = contract.columns[0]
            flat = Column(tensor.name, "tensor", dtype=tensor.dtype, shape=(-1,))
            kind = contract.schema.types[0].value_type
            columns = [self._convert(flat, kind, batch.column(name), name, first_row) for name in self._by_position]
            return pa.RecordBatch.from_arrays([_matrix_rows(columns)], schema=contract.schema)
        names = self._by_position or contract.names
        arrays: list[pa.Array] = []
        for column, kind, name in zip(contract.columns, contract.schema.types, names, strict=True):
            if name in self.columns:
                arrays.append(self._convert(column, kind, batch.column(name), name, first_row))
            else:
                arrays.append(pa.nulls(batch.num_rows, kind))
        return pa.RecordBatch.from_arrays(arrays, schema=contract.schema)

    def _convert(self, column: Column, kind: pa.DataType, array: pa.Array, name: str, first_row: int) -> pa.Array:
        try:
            return _convert(column, kind, _decode(array), is_text=self._file.is_text)
        except _InvalidRowError as error:
            where = f"{self._file.name}, row {first_row + error.row}, column {name}"
            raise UserError(f"expected {column.expected}, got {error}", field=where) from None


def _positional_columns(contract: Contract, names: list[str]) -> list[str] | None:
    """Return the file's columns in the order of the contract if that has no names or is one matrix, else None."""
    if contract.is_tensor:
        first = contract.columns[0]
        matrix = len(contract.columns) == 1 and len(first.shape) == 2
        return names if matrix and names and first.shape[1] in (-1, len(names)) else None
    return names if not contract.named and len(names) == len(contract.columns) else None


def _decode(array: pa.Array) -> pa.Array:
    """Return the values of `array` in a basic type: not a dictionary, view, extension or large type."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _decode(array.storage)
    if pa.types.is_dictionary(kind):
        return _decode(array.cast(kind.value_type))
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return array.cast(pa.string())
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        return array.cast(pa.binary())
    return array


def _convert(column: Column, kind: pa.DataType, array: pa.Array, *, is_text: bool) -> pa.Array:
    if is_text and pa.types.is_string(array.type):
        cells = array if column.kind in ("string", "binary") else pc.utf8_trim_whitespace(array)
        array = pc.if_else(pc.is_in(cells, _NULLS), pa.scalar(None, pa.string()), cells)
    if pa.types.is_null(array.type):
        converted = pa.nulls(len(array), kind)
    elif column.kind == "tensor":
        converted = _tensor(column, kind, array, is_text=is_text)
    elif column.kind == "json":
        converted = _json(column, array, is_text=is_text)
    elif column.kind in _FLOATS or column.kind in _INTEGERS:
        converted = _number(column, kind, array, is_text=is_text)
    elif column.kind == "datetime":
        converted = _time(array)
    elif is_text and column.kind in ("boolean", "binary"):
        converted = _parse_text(column, array)
    else:
        has_type = {"boolean": pa.types.is_boolean, "string": pa.types.is_string, "binary": pa.types.is_binary}
        if not has_type[column.kind](array.type):
            _refuse_type(array)
        converted = array
    if column.required and converted.null_count:
        raise _InvalidRowError(_first(converted.is_null()), "null")
    return converted


def _number(column: Column, kind: pa.DataType, array: pa.Array, *, is_text: bool) -> pa.Array:
    of = array.type
    if is_text and pa.types.is_string(of):
        array = _parse_numbers(column, kind, array)
    elif not (pa.types.is_integer(of) or pa.types.is_floating(of) or pa.types.is_decimal(of)):
        _refuse_type(array)
    if pa.types.is_floating(array.type):
        # NaN stands for null.
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    if column.kind in _INTEGERS:
        return _cast(array, kind, "a number that is not whole or out of range")
    # As in Python: an integer becomes the nearest float.
    numbers = array.cast(kind, safe=False)
    infinite = pc.fill_null(pc.is_inf(numbers), False)
    if pc.any(infinite).as_py():
        raise _InvalidRowError(_first(infinite), "a number out of range")
    return numbers


def _parse_numbers(column: Column, kind: pa.DataType, texts: pa.Array) -> pa.Array:
    """Return CSV text as numbers. All are decimal: Arrow would also read hexadecimal integers."""
    other = pc.fill_null(pc.invert(pc.match_substring_regex(texts, _NUMBER)), False)
    if pc.any(other).as_py():
        raise _InvalidRowError(_first(other), "other text")
    if column.kind in _FLOATS:
        return _cast(texts, pa.float64(), "other text")
    # Not through a float, which cannot represent all integers.
    whole = pc.replace_substring_regex(texts, r"\.0*$", "")
    try:
        return whole.cast(kind)
    except pa.ArrowInvalid:
        return _parse_integers(kind, texts)


def _parse_integers(kind: pa.DataType, texts: pa.Array) -> pa.Array:
    """Return decimal numbers of any form as integers, such as 1e3; slower than Arrow."""
    limits = np.iinfo(kind.to_pandas_dtype())
    integers: list[int | None] = []
    for row, text in enumerate(texts.to_pylist()):
        number = None if text is None else integer_of_cell(text)
        if text is not None and (number is None or not limits.min <= number <= limits.max):
            raise _InvalidRowError(row, "a number that is not whole or out of range")
        integers.append(number)
    return pa.array(integers, kind)


def _time(array: pa.Array) -> pa.Array:
    of = array.type
    if pa.types.is_string(of):
        times = pa.array(_convert_values(Column("time", "datetime", required=False), array.to_pylist()), _UTC)
    elif pa.types.is_timestamp(of) or pa.types.is_date(of):
        finer = is_finer_than_microsecond(array) if pa.types.is_timestamp(of) else pa.array([], pa.bool_())
        if pc.any(finer).as_py():
            raise _InvalidRowError(_first(finer), "a time finer than a microsecond, the unit in which values are kept")
        array = array if pa.types.is_timestamp(of) else array.cast(pa.timestamp("ms"))
        times = _cast(array, pa.timestamp("us", tz=array.type.tz), "a time out of range").cast(_UTC)
    else:
        _refuse_type(array)
    outside = pc.fill_null(is_time_out_of_range(times), False)
    if pc.any(outside).as_py():
        raise _InvalidRowError(_first(outside), "a time outside 1678 to 2261")
    return times


def _parse_text(column: Column, array: pa.Array) -> pa.Array:
    """Return CSV text converted to the type of the column."""
    if column.kind == "boolean":
        texts = array.to_pylist()
        for row, text in enumerate(texts):
            if text is not None and text not in BOOLEAN_CELLS:
                raise _InvalidRowError(row, "other text")
        return pa.array([None if text is None else BOOLEAN_CELLS[text] for text in texts], pa.bool_())
    return pa.array(_convert_values(column, array.to_pylist()), pa.binary())


def _json(column: Column, array: pa.Array, *, is_text: bool) -> pa.Array:
    values: list[Any] = array.to_pylist()
    is_document = is_text or (column.spec or {}).get("type") != "any"
    if pa.types.is_string(array.type) and is_document:
        for row, value in enumerate(values):
            try:
                values[row] = None if value is None else json.loads(value)
            except ValueError:
                raise _InvalidRowError(row, "text that is not JSON") from None
    return pa.array(
        [None if value is None else json.dumps(value) for value in _convert_values(column, values)], pa.string()
    )


def _convert_values(column: Column, values: list[Any]) -> list[Any]:
    converted: list[Any] = []
    for row, value in enumerate(values):
        try:
            converted.append(None if value is None else column.convert(value))
        except InvalidValueError as error:
            # Without the value: it may be personal, and this error goes to logs of jobs.
            raise _InvalidRowError(row, f"an invalid value ({str(error).partition(', got ')[0]})") from None
    return converted


def _tensor(column: Column, kind: pa.DataType, array: pa.Array, *, is_text: bool) -> pa.Array:
    """Return lists nested like the shape; all rows have the same sizes."""
    if len(column.shape) == 1 and column.dtype == "object":
        return pa.array([object_texts(value, 0) for value in array.to_pylist()], kind)
    if len(column.shape) == 1:
        return _leaf(column, kind, array, is_text=is_text)
    level, depth = array, len(column.shape) - 1
    each = 1  # values of this level in one row
    for position, size in enumerate(column.shape[1:]):
        if not any(is_list(level.type) for is_list in _LISTS):
            _refuse_type(array)
        if level.null_count:
            raise _InvalidRowError(_first(level.is_null()) // each, "null")
        lengths = pc.list_value_length(level)
        expected = size if size >= 0 else lengths[0].as_py()
        other = pc.not_equal(lengths, expected)
        if pc.any(other).as_py():
            raise _InvalidRowError(_first(other) // each, f"a different number of values in dimension {position + 1}")
        level = _decode(pc.list_flatten(level))
        each *= max(expected, 1)
    if pa.types.is_nested(level.type):
        _refuse_type(array)
    leaf = kind
    for _ in range(depth):
        leaf = leaf.value_type
    try:
        _leaf(column, leaf, level, is_text=False)
    except _InvalidRowError as error:
        raise _InvalidRowError(error.row // each, str(error)) from None
    if column.dtype == "object":
        return pa.array([object_texts(row, depth) for row in array.to_pylist()], kind)
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
    numbers = _number(number, kind, values, is_text=is_text)
    if numbers.null_count:
        raise _InvalidRowError(_first(numbers.is_null()), "a number that is not finite")
    return numbers


def _matrix_rows(columns: list[pa.Array]) -> pa.Array:
    """Return the rows of a matrix with these columns as lists."""
    if pa.types.is_string(columns[0].type):
        return pa.array([list(row) for row in zip(*(column.to_pylist() for column in columns), strict=True)])
    matrix = np.column_stack([column.to_numpy(zero_copy_only=False) for column in columns])
    offsets = np.arange(len(matrix) + 1, dtype=np.int32) * len(columns)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(matrix.reshape(-1), columns[0].type))


def _cast(array: pa.Array, kind: pa.DataType, message: str) -> pa.Array:
    # Truncate to microseconds.
    options = pc.CastOptions(kind, allow_time_truncate=True)
    try:
        return array.cast(options=options)
    except pa.ArrowInvalid:
        # Find the first invalid value by bisection.
        low, high = 0, len(array)
        while high - low > 1:
            middle = (low + high) // 2
            try:
                array.slice(low, middle - low).cast(options=options)
                low = middle
            except pa.ArrowInvalid:
                high = middle
        raise _InvalidRowError(low, message) from None


def _first(mask: pa.Array) -> int:
    return int(pc.index(mask, True).as_py())


def _refuse_type(array: pa.Array) -> NoReturn:
    raise _InvalidRowError(
        _first(array.is_valid()) if array.null_count < len(array) else 0, f"values of type {array.type}"
    )
