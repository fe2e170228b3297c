"""Reads rows from an Arrow IPC stream, without a copy where the types match the contract, with all offsets checked.

A small stream can claim to hold much data: compressed buffers, dictionaries, views, and columns without buffers.
Compressed buffers and views are refused; the others are measured before they are expanded.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from ..contract.columns import FIRST_TIME, LARGEST, LAST_TIME, Column, InvalidValueError
from ..contract.field_errors import invalid_field, printable, raise_field_errors, show_value
from ..contract.model_contract import COLUMNAR_ROWS, Contract
from ..http.errors import FieldError, Problem
from ..http.limit_errors import exceeds
from ..inference.batch import Batch
from ..settings import LimitSettings
from .checks import (
    EVENT_TIME,
    absent_columns,
    check_column_names,
    check_tensor_shapes,
    text_too_long,
    too_many_columns,
    too_many_rows,
)
from .json_strict import parse_any

pc: Any = pyarrow.compute  # its functions are created at import, so type checkers do not see them
_UTC = pa.timestamp("us", tz="UTC")
# In the flatbuffers metadata of Arrow messages: two header types, and the compression member of a record batch.
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_COMPRESSION = 3


def read_arrow(contract: Contract, body: bytes, limits: LimitSettings) -> Batch:
    """Return the rows of `body`, its columns matched by name; `event_time` may be an extra column.

    Raises:
        Problem: 400: not an Arrow stream; 413: too large; 415: compressed buffers; 422: invalid columns.
    """
    table = _read_table(body, limits)
    names: list[str] = table.column_names
    has_times = check_column_names(contract, names)
    errors: list[FieldError] = []
    rows: int = table.num_rows
    arrays: list[Any] = []
    for column, kind in zip(contract.columns, contract.schema.types, strict=True):
        try:
            given = table.column(column.name) if column.name in names else None
            arrays.append(pa.nulls(rows, kind) if given is None else _convert(column, kind, _combined(given), limits))
        except InvalidValueError as error:
            errors.append(FieldError(printable(column.name), str(error)))
    times: list[datetime] | None = None
    if has_times:
        try:
            given = _combined(table.column(EVENT_TIME))
            if pa.types.is_timestamp(given.type) and given.type.tz is None:
                raise InvalidValueError("expected times with a time zone")
            times = _convert_times(Column(EVENT_TIME, "datetime"), given).to_pylist()
        except InvalidValueError as error:
            errors.append(FieldError(EVENT_TIME, str(error)))
    raise_field_errors(errors)
    if contract.is_tensor or any(column.kind == "json" for column in contract.columns):
        columns = [array if isinstance(array, list) else array.to_pylist() for array in arrays]
        tuples = check_tensor_shapes(contract, list(zip(*columns, strict=True)), "body")
        return contract.columnar_if_large(
            Batch(rows, tuples, times, absent_columns(contract, names), params=contract.default_params)
        )
    values = pa.RecordBatch.from_arrays(arrays, schema=contract.schema)
    batch = Batch(rows, values, times, absent_columns(contract, names), params=contract.default_params)
    if rows <= COLUMNAR_ROWS:
        # Tuples: small requests are merged with others into one model call.
        batch = replace(batch, values=contract.to_tuples(batch))
    return batch


def _read_table(body: bytes, limits: LimitSettings) -> pa.Table:
    try:
        _refuse_compressed(body)
        source = pa.BufferReader(body)
        batches: list[pa.RecordBatch] = []
        with pa.ipc.open_stream(source) as reader:
            schema = reader.schema
            if len(schema) > limits.columns:
                raise too_many_columns(len(schema), limits)
            for field in schema:
                _check_type(field.type, printable(field.name), limits.depth)
            rows = 0
            for batch in reader:
                rows += batch.num_rows
                if rows > limits.rows:
                    raise too_many_rows(rows, limits)
                batch.validate(full=True)
                batches.append(batch)
        if source.tell() != len(body):
            raise Problem(400, "extra bytes follow the Arrow stream")
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError, struct.error, OverflowError) as error:
        detail = str(error).partition("\n")[0][:200]
        raise Problem(400, f"the body is not an Arrow stream: {printable(detail)}") from None
    if not rows:
        raise invalid_field("body", "expected at least one row")
    return pa.Table.from_batches(batches, schema=schema)


def _refuse_compressed(body: bytes) -> None:
    """Refuse compressed buffers: Arrow allocates the decompressed size that they claim, unchecked."""
    for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(body)):
        metadata = memoryview(message.metadata)
        (root,) = struct.unpack_from("<I", metadata, 0)
        kind = _member(metadata, root, 1)
        header = _member(metadata, root, 2)
        if kind is None or header is None or metadata[kind] not in (_DICTIONARY_BATCH, _RECORD_BATCH):
            continue
        batch = header + struct.unpack_from("<I", metadata, header)[0]
        if metadata[kind] == _DICTIONARY_BATCH:
            data = _member(metadata, batch, 1)
            if data is None:
                continue
            batch = data + struct.unpack_from("<I", metadata, data)[0]
        if _member(metadata, batch, _COMPRESSION) is not None:
            raise Problem(415, "the Arrow stream has compressed buffers; send it uncompressed, or gzip the whole body")


def _member(metadata: memoryview, table: int, slot: int) -> int | None:
    """Return the offset of a member of a flatbuffers table, or None if it is absent."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    if vtable < 0:
        raise ValueError("a metadata table lies outside the metadata")
    (size,) = struct.unpack_from("<H", metadata, vtable)
    position = 4 + 2 * slot
    if position + 2 > size:
        return None
    (offset,) = struct.unpack_from("<H", metadata, vtable + position)
    return table + offset if offset else None


def _check_type(kind: pa.DataType, name: str, depth: int, *, inner: bool = False) -> None:
    """Refuse types that can hold many more values than bytes.

    Called before a batch is read: Arrow divides by the list size, and crashes the process if it is 0.
    """
    types = pa.types
    if depth < 0:
        raise Problem(400, f"{name} is nested too deeply")
    if types.is_list(kind) or types.is_large_list(kind) or (types.is_fixed_size_list(kind) and kind.list_size > 0):
        _check_type(kind.value_type, name, depth - 1, inner=True)
    elif types.is_struct(kind) and kind.num_fields:
        fields = [kind.field(at) for at in range(kind.num_fields)]
        if len({field.name for field in fields}) != len(fields):
            raise invalid_field(name, "a struct in it has two fields of one name")
        for field in fields:
            _check_type(field.type, name, depth - 1, inner=True)
    elif types.is_timestamp(kind) and not inner:
        return
    elif types.is_dictionary(kind) and not inner:
        _check_type(kind.value_type, name, 0, inner=True)
    elif not (
        types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or (not inner and (types.is_null(kind) or _is_bytes(kind)))
    ):
        raise invalid_field(name, f"the Arrow type {printable(str(kind))} is not supported")


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_fixed_size_binary(kind):
        return kind.byte_width > 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _combined(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    if pa.types.is_dictionary(column.type):
        # Each batch may have its own dictionary.
        column = column.unify_dictionaries()
    combined = column.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


def _convert(column: Column, kind: pa.DataType, array: pa.Array, limits: LimitSettings) -> Any:
    """Return `array` as type `kind`, or as a list of values for tensors and JSON."""
    if pa.types.is_dictionary(array.type):
        array = _decode_dictionary(array, limits)
    of = array.type
    if pa.types.is_null(of):
        converted: Any = pa.nulls(len(array), kind)
    elif column.kind == "tensor":
        return _convert_tensors(column, array)
    elif column.kind == "json":
        return _convert_json(column, array, limits)
    elif column.kind in LARGEST and (pa.types.is_integer(of) or pa.types.is_floating(of)):
        converted = _convert_floats(column, kind, array)
    elif column.kind in ("integer", "long") and (pa.types.is_integer(of) or pa.types.is_floating(of)):
        if pa.types.is_floating(of):
            # NaN stands for null.
            array = pc.if_else(pc.is_nan(array), pa.scalar(None, of), array)
        converted = _cast(array, kind, f"is not whole or out of range for {column.kind}")
    elif column.kind == "datetime" and pa.types.is_timestamp(of):
        if pc.any(is_finer_than_microsecond(array)).as_py():
            raise InvalidValueError("is finer than a microsecond, the unit in which values are kept")
        converted = _convert_times(column, array)
    elif column.kind == "string" and _is_text(of):
        longest = pc.max(pc.utf8_length(array)).as_py() or 0
        if longest > limits.text:
            raise text_too_long(longest, limits)
        converted = _cast(array, kind, "is too large")
    elif (column.kind == "binary" and _is_bytes(of)) or (column.kind == "boolean" and pa.types.is_boolean(of)):
        converted = _cast(array, kind, "is too large")
    else:
        raise InvalidValueError(f"expected {column.expected}, got {of}{_such_as(array)}")
    if column.required and converted.null_count:
        raise InvalidValueError(f"expected {column.expected}, got null")
    return converted


def _decode_dictionary(array: pa.DictionaryArray, limits: LimitSettings) -> pa.Array:
    if _is_text(array.dictionary.type):
        size = pc.sum(pc.take(pc.binary_length(array.dictionary), array.indices)).as_py() or 0
        if size > limits.body_bytes:
            what = f"a dictionary column expands to {size} bytes"
            raise Problem(413, exceeds(what, limits.body_bytes, "body_bytes"))
    return array.dictionary_decode()


def _cast(array: pa.Array, kind: pa.DataType, message: str) -> pa.Array:
    try:
        # Truncate to microseconds, as for JSON.
        return array.cast(options=pc.CastOptions(kind, allow_time_truncate=True))
    except pa.ArrowInvalid:
        raise InvalidValueError(f"{message}{_first_failing(array, kind)}") from None


def _first_failing(array: pa.Array, kind: pa.DataType) -> str:
    """Return the first value of `array` that cannot become `kind`, as an error shows it."""
    options = pc.CastOptions(kind, allow_time_truncate=True)
    while len(array) > 1:
        half = len(array) // 2
        try:
            array[:half].cast(options=options)
        except pa.ArrowInvalid:
            array = array[:half]
        else:
            array = array[half:]
    return _got(array)


def _got(array: pa.Array) -> str:
    """Return the first value of `array`, as an error shows it; empty if there is none in Python."""
    return _shown(array, "got")


def _such_as(array: pa.Array) -> str:
    """Return an example of the values of `array`, which have a wrong type, as an error shows it."""
    return _shown(array.drop_null(), "such as")


def _shown(array: pa.Array, words: str) -> str:
    try:
        return f", {words} {show_value(array[0].as_py())}" if len(array) else ""
    except (ValueError, OverflowError, pa.ArrowException):
        return ""


def _convert_floats(column: Column, kind: pa.DataType, array: pa.Array) -> pa.Array:
    if array.type == kind == pa.float64() and not array.null_count and np.isfinite(array.to_numpy()).all():
        # The usual column of a large request, checked in one pass.
        return array
    # Through float64, as Python does: an integer becomes the nearest float.
    wide = array.cast(pa.float64(), safe=False)
    if pc.any(pc.is_nan(wide)).as_py():
        if column.required:
            raise InvalidValueError(f"expected {column.expected}, got NaN")
        wide = pc.if_else(pc.is_nan(wide), pa.scalar(None, pa.float64()), wide)
    too_large = pc.greater(pc.abs(wide), LARGEST[column.kind])
    if pc.any(too_large).as_py():
        raise InvalidValueError(f"is out of range for {column.kind}{_got(array.filter(too_large))}")
    return wide.cast(kind, safe=False)


def _convert_times(column: Column, array: pa.Array) -> pa.Array:
    of = array.type
    if not pa.types.is_timestamp(of):
        raise InvalidValueError(f"expected times, got {of}")
    # Arrow stores UTC instants; ignore the zone, whose name can be anything. Times without a zone are in UTC.
    times = _cast(array.view(pa.timestamp(of.unit)), pa.timestamp("us"), "is out of range").cast(_UTC)
    outside = is_time_out_of_range(times)
    if pc.any(outside).as_py():
        raise InvalidValueError(f"expected times from 1678 to 2261{_got(times.filter(outside))}")
    if column.required and times.null_count:
        raise InvalidValueError("must not be null")
    return times


def is_finer_than_microsecond(times: pa.Array) -> pa.Array:
    """Return for each of `times` whether it would change in microseconds; null for null."""
    if times.type.unit != "ns":
        return pc.and_(times.is_valid(), False)
    numbers = times.view(pa.timestamp("ns")).cast(pa.int64())
    return pc.not_equal(pc.multiply(pc.divide(numbers, 1000), 1000), numbers)


def is_time_out_of_range(times: pa.Array) -> pa.Array:
    """Return for each of `times`, in UTC, whether it is outside 1678 to 2261; null for null."""
    return pc.or_(pc.less(times, pa.scalar(FIRST_TIME, _UTC)), pc.greater_equal(times, pa.scalar(LAST_TIME, _UTC)))


def _convert_json(column: Column, array: pa.Array, limits: LimitSettings) -> list[Any]:
    _check_value_count(array, limits.body_bytes)
    values: list[Any] = array.to_pylist()
    if _is_text(array.type):
        try:
            values = [
                None if text is None else parse_any(text, depth=limits.depth, text=limits.text) for text in values
            ]
        except Problem as problem:
            raise InvalidValueError(f"holds text that is not JSON: {problem.detail}") from None
    return [column.convert(value) for value in values]


def _check_value_count(array: pa.Array, limit: int) -> None:
    """Refuse lists with more than `limit` values on one nesting level."""
    if pa.types.is_struct(array.type):
        for field in array.flatten():
            _check_value_count(field, limit)
    elif pa.types.is_nested(array.type):
        inner = array.flatten()
        if len(inner) > limit:
            raise Problem(413, exceeds(f"the lists of a column hold {len(inner)} values", limit, "body_bytes"))
        _check_value_count(inner, limit)


def _convert_tensors(column: Column, array: pa.Array) -> list[np.ndarray[Any, Any]]:
    shape: list[int] = [len(array)]
    for size in column.shape[1:]:
        if not pa.types.is_nested(array.type) or pa.types.is_struct(array.type):
            raise InvalidValueError(f"expected {column.expected}, got {array.type}")
        if array.null_count:
            raise InvalidValueError("must not contain null")
        lengths = pc.unique(pc.list_value_length(array)).to_pylist()
        if len(lengths) != 1 or lengths[0] == 0 or size not in (-1, lengths[0]):
            raise InvalidValueError(f"expected {column.expected}, got lists of {lengths[:5]} values")
        shape.append(lengths[0])
        array = array.flatten()
    if array.null_count or pa.types.is_nested(array.type):
        raise InvalidValueError(f"expected {column.expected}, without nulls")
    if column.dtype in ("str", "object"):
        if not _is_text(array.type):
            raise InvalidValueError(f"expected text, got {array.type}{_such_as(array)}")
        values = np.array(array.to_pylist(), dtype=column.dtype)
    else:
        dtype = np.dtype(column.dtype)
        numbers = array.to_numpy(zero_copy_only=False)
        if not np.can_cast(numbers.dtype, dtype, "safe"):
            raise InvalidValueError(f"expected {column.dtype}, got {array.type}{_such_as(array)}")
        if dtype.kind == "f" and not np.isfinite(numbers).all():
            raise InvalidValueError(f"expected finite numbers{_got(array.filter(pa.array(~np.isfinite(numbers))))}")
        values = numbers.astype(dtype)
    values = values.reshape(shape)
    # The ellipsis keeps a single value an array.
    return [values[row, ...] for row in range(shape[0])]
