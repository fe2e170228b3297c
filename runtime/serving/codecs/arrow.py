"""Rows as an Arrow IPC stream: read without a copy where the types are the contract's, checked to the last offset.

A stream may be small and hold much: packed buffers, dictionaries, views and columns without buffers say more than they
take. The first and the views are refused, the others counted before they are unfolded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from ..contract.columns import FIRST_TIME, LARGEST, LAST_TIME, Column, UnfitValueError
from ..contract.model_contract import MANY, Contract
from ..http.errors import FieldError, Problem
from ..inference.batch import Batch
from ..settings import LimitSettings
from .json_exact import checked_rows
from .json_strict import named, parse_any, refuse, wrong

__all__ = ["EVENT_TIME", "read_arrow"]

EVENT_TIME = "event_time"
pc: Any = pyarrow.compute  # its functions are made when it is imported, which no type checker sees
_UTC = pa.timestamp("us", tz="UTC")
# Of the flatbuffers of Arrow's messages: kinds of headers, and where a record batch says how it is packed.
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_COMPRESSION = 3


def read_arrow(contract: Contract, body: bytes, limits: LimitSettings) -> Batch:
    """Return the rows of `body`, whose columns are told by their names; `event_time` may be among them.

    Raises:
        Problem: 400, it is no such stream; 413, it holds too much; 415, it is packed; 422, a column does not fit.
    """
    table = _table(body, limits)
    names: list[str] = table.column_names
    errors = [FieldError(named(name), "twice") for at, name in enumerate(names) if name in names[:at]]
    with_times = EVENT_TIME in names and EVENT_TIME not in contract.positions
    errors += [
        FieldError(named(name), "unknown column")
        for name in names
        if name not in contract.positions and not (with_times and name == EVENT_TIME)
    ]
    for column in contract.columns:
        if column.required and column.name not in names:
            errors.append(FieldError(named(column.name), f"missing; wants {column.wants}"))
    refuse(errors)
    rows: int = table.num_rows
    arrays: list[Any] = []
    for column, kind in zip(contract.columns, contract.schema.types, strict=True):
        try:
            given = table.column(column.name) if column.name in names else None
            arrays.append(pa.nulls(rows, kind) if given is None else _fitted(column, kind, _whole(given), limits))
        except UnfitValueError as error:
            errors.append(FieldError(named(column.name), str(error)))
    times: list[datetime] | None = None
    if with_times:
        try:
            times = _times(Column(EVENT_TIME, "datetime"), _whole(table.column(EVENT_TIME))).to_pylist()
        except UnfitValueError as error:
            errors.append(FieldError(EVENT_TIME, str(error)))
    refuse(errors)
    if contract.is_tensor or any(column.kind == "json" for column in contract.columns):
        columns = [array if isinstance(array, list) else array.to_pylist() for array in arrays]
        tuples = checked_rows(contract, list(zip(*columns, strict=True)), "body")
        return contract.packed(Batch(rows, tuples, times))
    batch = Batch(rows, pa.RecordBatch.from_arrays(arrays, schema=contract.schema), times)
    if rows <= MANY:
        # Few rows are answered together with those of others.
        batch = Batch(rows, contract.to_tuples(batch), times)
    return batch


def _table(body: bytes, limits: LimitSettings) -> pa.Table:
    try:
        _refuse_packed(body)
        source = pa.BufferReader(body)
        batches: list[pa.RecordBatch] = []
        with pa.ipc.open_stream(source) as reader:
            schema = reader.schema
            if len(schema) > limits.columns:
                raise Problem(413, f"{len(schema)} columns are more than the {limits.columns} one request may have")
            for field in schema:
                _check_type(field.type, named(field.name), limits.depth)
            rows = 0
            for batch in reader:
                rows += batch.num_rows
                if rows > limits.rows:
                    raise Problem(413, f"{rows} rows are more than the {limits.rows} which one request may have")
                batch.validate(full=True)
                batches.append(batch)
        if source.tell() != len(body):
            raise Problem(400, "there is something after the end of the Arrow stream")
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError, struct.error, OverflowError) as error:
        detail = str(error).partition("\n")[0][:200]
        raise Problem(400, f"the body is no Arrow stream: {named(detail)}") from None
    if not rows:
        raise wrong("body", "wants at least one row")
    return pa.Table.from_batches(batches, schema=schema)


def _refuse_packed(body: bytes) -> None:
    """Refuse buffers which say how large they are once unpacked: that much would be taken at once."""
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
            raise Problem(415, "the buffers of the Arrow stream are packed; send them plain, the body packed by gzip")


def _member(metadata: memoryview, table: int, slot: int) -> int | None:
    """Return where a member of a flatbuffers table stands, or None where it is left out."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    if vtable < 0:
        raise ValueError("a table of its metadata lies outside of them")
    (size,) = struct.unpack_from("<H", metadata, vtable)
    position = 4 + 2 * slot
    if position + 2 > size:
        return None
    (offset,) = struct.unpack_from("<H", metadata, vtable + position)
    return table + offset if offset else None


def _check_type(kind: pa.DataType, name: str, depth: int, *, inner: bool = False) -> None:
    """Refuse types whose values may be many more than the bytes they take.

    It is asked before a batch is read: Arrow divides by the size of lists, and dies where that is 0.
    """
    types = pa.types
    if depth < 0:
        raise Problem(400, f"{name} is nested too deeply")
    if types.is_list(kind) or types.is_large_list(kind) or (types.is_fixed_size_list(kind) and kind.list_size > 0):
        _check_type(kind.value_type, name, depth - 1, inner=True)
    elif types.is_struct(kind) and kind.num_fields:
        fields = [kind.field(at) for at in range(kind.num_fields)]
        if len({field.name for field in fields}) != len(fields):
            raise wrong(name, "a struct of it has two fields of one name")
        for field in fields:
            _check_type(field.type, name, depth - 1, inner=True)
    elif types.is_timestamp(kind) and not inner:
        if kind.tz is None:
            raise wrong(name, "wants times with a zone")
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
        raise wrong(name, f"the Arrow type {named(str(kind))} is not taken")


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_fixed_size_binary(kind):
        return kind.byte_width > 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    if pa.types.is_dictionary(column.type):
        # Each batch may have a dictionary of its own.
        column = column.unify_dictionaries()
    whole = column.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole


def _fitted(column: Column, kind: pa.DataType, array: pa.Array, limits: LimitSettings) -> Any:
    """Return `array` as `column` holds it: of `kind`, or a list of values for tensors and JSON."""
    if pa.types.is_dictionary(array.type):
        array = _unfolded(array, limits)
    of = array.type
    if pa.types.is_null(of):
        fitted: Any = pa.nulls(len(array), kind)
    elif column.kind == "tensor":
        return _tensors(column, array)
    elif column.kind == "json":
        return _values(column, array, limits)
    elif column.kind in LARGEST and (pa.types.is_integer(of) or pa.types.is_floating(of)):
        fitted = _floats(column, kind, array)
    elif column.kind in ("integer", "long") and pa.types.is_integer(of):
        fitted = _cast(array, kind, f"is out of the range of {column.kind}")
    elif column.kind == "datetime" and pa.types.is_timestamp(of):
        fitted = _times(column, array)
    elif column.kind == "string" and _is_text(of):
        longest = pc.max(pc.utf8_length(array)).as_py() or 0
        if longest > limits.text:
            raise UnfitValueError(f"a string may have {limits.text} characters, one has {longest}")
        fitted = _cast(array, kind, "holds too much")
    elif (column.kind == "binary" and _is_bytes(of)) or (column.kind == "boolean" and pa.types.is_boolean(of)):
        fitted = _cast(array, kind, "holds too much")
    else:
        raise UnfitValueError(f"wants {column.wants}, got {of}")
    if column.required and fitted.null_count:
        raise UnfitValueError(f"wants {column.wants}, got null")
    return fitted


def _unfolded(array: pa.DictionaryArray, limits: LimitSettings) -> pa.Array:
    if _is_text(array.dictionary.type):
        size = pc.sum(pc.take(pc.binary_length(array.dictionary), array.indices)).as_py() or 0
        if size > limits.body_bytes:
            raise Problem(413, f"a dictionary column holds {size} bytes of text, more than {limits.body_bytes}")
    return array.dictionary_decode()


def _cast(array: pa.Array, kind: pa.DataType, message: str) -> pa.Array:
    try:
        # What is finer than a microsecond is cut off, as in JSON.
        return array.cast(options=pc.CastOptions(kind, allow_time_truncate=True))
    except pa.ArrowInvalid:
        raise UnfitValueError(message) from None


def _floats(column: Column, kind: pa.DataType, array: pa.Array) -> pa.Array:
    # By way of 64 bits, as Python does it: an integer becomes the nearest float.
    wide = array.cast(pa.float64(), safe=False)
    if pc.any(pc.is_nan(wide)).as_py():
        if column.required:
            raise UnfitValueError(f"wants {column.wants}, got NaN")
        wide = pc.if_else(pc.is_nan(wide), pa.scalar(None, pa.float64()), wide)
    if pc.any(pc.greater(pc.abs(wide), LARGEST[column.kind])).as_py():
        raise UnfitValueError(f"is out of the range of {column.kind}")
    return wide.cast(kind, safe=False)


def _times(column: Column, array: pa.Array) -> pa.Array:
    of = array.type
    if not pa.types.is_timestamp(of):
        raise UnfitValueError(f"wants times with a zone, got {of}")
    # The unit alone: what instant it is does not hang on the zone, whose name may be any.
    fitted = _cast(array.view(pa.timestamp(of.unit)), pa.timestamp("us"), "is out of range").cast(_UTC)
    ends: list[tuple[datetime, Callable[..., Any]]] = [(FIRST_TIME, pc.less), (LAST_TIME, pc.greater_equal)]
    if any(pc.any(beyond(fitted, pa.scalar(end, _UTC))).as_py() for end, beyond in ends):
        raise UnfitValueError("wants times of 1678 to 2261")
    if column.required and fitted.null_count:
        raise UnfitValueError("must not be null")
    return fitted


def _values(column: Column, array: pa.Array, limits: LimitSettings) -> list[Any]:
    _few_values(array, limits.body_bytes)
    values: list[Any] = array.to_pylist()
    if _is_text(array.type):
        try:
            values = [
                None if text is None else parse_any(text, depth=limits.depth, text=limits.text) for text in values
            ]
        except Problem as problem:
            raise UnfitValueError(f"holds text which is no JSON: {problem.detail}") from None
    return [column.convert(value) for value in values]


def _few_values(array: pa.Array, most: int) -> None:
    """Refuse lists which hold more than `most` values on one level."""
    if pa.types.is_struct(array.type):
        for field in array.flatten():
            _few_values(field, most)
    elif pa.types.is_nested(array.type):
        inner = array.flatten()
        if len(inner) > most:
            raise Problem(413, f"the lists of a column hold {len(inner)} values, more than {most}")
        _few_values(inner, most)


def _tensors(column: Column, array: pa.Array) -> list[np.ndarray[Any, Any]]:
    shape: list[int] = [len(array)]
    for size in column.shape[1:]:
        if not pa.types.is_nested(array.type) or pa.types.is_struct(array.type):
            raise UnfitValueError(f"wants {column.wants}, got {array.type}")
        if array.null_count:
            raise UnfitValueError("must not hold null")
        lengths = pc.unique(pc.list_value_length(array)).to_pylist()
        if len(lengths) != 1 or lengths[0] == 0 or size not in (-1, lengths[0]):
            raise UnfitValueError(f"wants {column.wants}, got lists of {lengths[:5]} values")
        shape.append(lengths[0])
        array = array.flatten()
    if array.null_count or pa.types.is_nested(array.type):
        raise UnfitValueError(f"wants {column.wants}, without nulls")
    if column.dtype in ("str", "object"):
        if not _is_text(array.type):
            raise UnfitValueError(f"wants text, got {array.type}")
        held = np.array(array.to_pylist(), dtype=column.dtype)
    else:
        dtype = np.dtype(column.dtype)
        numbers = array.to_numpy(zero_copy_only=False)
        if not np.can_cast(numbers.dtype, dtype, "safe"):
            raise UnfitValueError(f"wants {column.dtype}, got {array.type}")
        if dtype.kind == "f" and not np.isfinite(numbers).all():
            raise UnfitValueError("wants finite numbers")
        held = numbers.astype(dtype)
    held = held.reshape(shape)
    # With the dots even one value is an array.
    return [held[row, ...] for row in range(shape[0])]
