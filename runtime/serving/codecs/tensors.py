"""Tensors as the Open Inference Protocol says them, and the values of columns in them."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from ..contract.columns import BITS, LARGEST, Column, UnfitValueError
from ..http.errors import Problem
from ..settings import LimitSettings
from .json_strict import named, parse_any, wrong

__all__ = ["DATATYPES", "Tensor", "bytes_of", "column_values", "datatype_of", "from_bytes", "from_data", "said"]

DATATYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "str",
}
_NAMES = {dtype: name for name, dtype in DATATYPES.items()} | {"object": "BYTES"}
_KINDS = {"boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64"}
_LENGTH = struct.Struct("<I")
_FEW = 16

Values: TypeAlias = "np.ndarray[Any, Any] | list[Any]"


@dataclass(frozen=True)
class Tensor:
    """One input of a request.

    Attributes:
        at: where it stands in the request.
        flat: its values in row-major order: an array of its datatype, or a list of texts, bytes and nulls.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    at: str
    flat: Values


def datatype_of(column: Column) -> str:
    """Return the protocol's name for what `column` takes; times are RFC 3339 text, JSON is its text."""
    return _NAMES[column.dtype] if column.kind == "tensor" else _KINDS.get(column.kind, "BYTES")


def from_data(name: str, datatype: str, shape: tuple[int, ...], data: Any, at: str) -> Tensor:
    """Return the tensor whose values are `data`, a JSON list, nested or flat.

    Raises:
        Problem: 422, it is not what it says.
    """
    flat: Any = data
    for outer, size in enumerate(shape[1:]):
        if not isinstance(flat, list) or not any(isinstance(item, list) for item in flat):
            break
        if not all(isinstance(item, list) and len(item) == size for item in flat) or (
            outer == 0 and len(flat) != shape[0]
        ):
            raise wrong(f"{at}.data", "wants a flat list of values, or lists nested as the shape says")
        flat = [each for item in flat for each in item]
    if not isinstance(flat, list):
        raise wrong(f"{at}.data", "wants a list of values")
    _sized(len(flat), shape, f"{at}.data")
    present = [value for value in flat if value is not None] if None in flat else flat
    try:
        held = Column(name, "tensor", dtype=DATATYPES[datatype], shape=(-1,)).array(present) if present else []
    except UnfitValueError as error:
        raise wrong(f"{at}.data", str(error)) from None
    # Texts stay as they came: what a column makes of them is its affair.
    return Tensor(name, datatype, shape, at, flat if datatype == "BYTES" or len(present) != len(flat) else held)


def from_bytes(name: str, datatype: str, shape: tuple[int, ...], data: memoryview, at: str) -> Tensor:
    """Return the tensor whose values are `data`, as the binary extension has them.

    Raises:
        Problem: 422, it is not what it says.
    """
    if datatype == "BYTES":
        texts = _texts(data, at)
        _sized(len(texts), shape, at)
        return Tensor(name, datatype, shape, at, texts)
    dtype = np.dtype(DATATYPES[datatype]).newbyteorder("<")
    count = 1
    for size in shape:
        count *= size
    if count * dtype.itemsize != len(data):
        raise wrong(at, f"the shape {list(shape)} of {datatype} takes {count * dtype.itemsize} bytes, not {len(data)}")
    if datatype == "BOOL":
        numbers = np.frombuffer(data, np.uint8)
        if numbers.size and int(numbers.max()) > 1:
            raise wrong(at, "BOOL wants bytes which are 0 or 1")
    return Tensor(name, datatype, shape, at, np.frombuffer(data, dtype).astype(dtype.newbyteorder("=")))


def _texts(data: memoryview, at: str) -> list[bytes]:
    texts: list[bytes] = []
    position = 0
    while position < len(data):
        if position + _LENGTH.size > len(data):
            raise wrong(at, "ends in the middle of a length")
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        if length > len(data) - position:
            raise wrong(at, f"names a length of {length} bytes where {len(data) - position} are left")
        texts.append(bytes(data[position : position + length]))
        position += length
    return texts


def _sized(values: int, shape: tuple[int, ...], at: str) -> None:
    count = 1
    for size in shape:
        count *= size
    if count != values:
        raise wrong(at, f"the shape {list(shape)} takes {count} values, not {values}")


def column_values(column: Column, tensor: Tensor, limits: LimitSettings, *, whole: bool = False) -> Values:
    """Return the values of `tensor` as `column` holds them: an array without nulls, or a list.

    Args:
        column: not of tensors.
        tensor: one value a row.
        limits: on texts.
        whole: whether integers may come as floats, as they do in a matrix of all columns.

    Raises:
        Problem: 422, one does not fit.
    """
    flat = tensor.flat
    try:
        if isinstance(flat, list):
            return [_one(column, tensor, value, limits, whole=whole) for value in flat]
        return _numbers(column, flat, whole=whole)
    except UnfitValueError as error:
        raise wrong(tensor.at, str(error)) from None


def _one(column: Column, tensor: Tensor, value: Any, limits: LimitSettings, *, whole: bool) -> Any:
    if isinstance(value, bytes):
        if column.kind == "binary":
            return value
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise UnfitValueError(f"{named(column.name)}: a text is not UTF-8") from None
        if len(value) > limits.text:
            raise UnfitValueError(f"{named(column.name)}: a text has more than {limits.text} characters")
    elif value is not None and tensor.datatype != "BYTES":
        # A list because of nulls; the others are numbers of the datatype.
        array = _numbers(column, np.array([value], DATATYPES[tensor.datatype]), whole=whole)
        return array.tolist()[0] if isinstance(array, np.ndarray) else array[0]
    if column.kind == "json" and isinstance(value, str):
        try:
            value = parse_any(value, depth=limits.depth, text=limits.text)
        except Problem as problem:
            raise UnfitValueError(f"{named(column.name)}: {problem.detail}") from None
    return column.convert(value)


def _numbers(column: Column, array: np.ndarray[Any, Any], *, whole: bool) -> Values:
    kind, of, name = column.kind, array.dtype.kind, named(column.name)
    if kind in LARGEST and of in "fiu":
        if array.size <= _FEW:
            # A call of numpy costs more than a few numbers do.
            few: list[float] = [float(number) for number in array.tolist()]
            if all(abs(number) <= LARGEST[kind] for number in few):
                return few
        numbers = array.astype(np.float64)
        missing = np.isnan(numbers)
        if missing.any():
            if column.required:
                raise UnfitValueError(f"{name} must not be NaN")
            # A tensor has no other way to say null.
            if not (np.abs(numbers[~missing]) <= LARGEST[kind]).all():
                raise UnfitValueError(f"{name} is out of the range of {kind}")
            return [None if number != number else number for number in numbers.tolist()]
        if not (np.abs(numbers) <= LARGEST[kind]).all():
            raise UnfitValueError(f"{name} is out of the range of {kind}")
        return numbers
    if kind in BITS and (of in "iu" or (whole and of == "f")):
        low, high = -(1 << BITS[kind]), (1 << BITS[kind]) - 1
        values: list[Any] = array.tolist()
        if of == "f":
            if not column.required:
                values = [None if number != number else number for number in values]
            if not all(number is None or (abs(number) < 1 << 53 and number.is_integer()) for number in values):
                raise UnfitValueError(f"{name} wants {column.wants}")
            values = [None if number is None else int(number) for number in values]
        if not all(number is None or low <= number <= high for number in values):
            raise UnfitValueError(f"{name} is out of the range of {kind}")
        return values if None in values else np.array(values, np.int64)
    if kind == "boolean" and of == "b":
        return array
    raise UnfitValueError(f"{name} wants {datatype_of(column)}, got {_NAMES[array.dtype.name]}")


def said(outputs: Sequence[Any] | np.ndarray[Any, Any]) -> tuple[str, list[int], Values]:
    """Return the datatype, the shape and the values of what a model gave."""
    if isinstance(outputs, np.ndarray):
        if outputs.dtype.name in _NAMES:
            return _NAMES[outputs.dtype.name], list(outputs.shape), outputs
        outputs = outputs.tolist()
    values = list(outputs)
    kinds = set(map(type, values))
    for kind, datatype in ((bool, "BOOL"), (int, "INT64"), (float, "FP64")):
        if kinds == {kind}:
            try:
                return datatype, [len(values)], np.array(values, DATATYPES[datatype])
            except OverflowError:
                break
    return "BYTES", [len(values)], [value if isinstance(value, str) else json.dumps(value) for value in values]


def bytes_of(values: Values) -> bytes:
    """Return `values` as the binary extension has them."""
    if isinstance(values, np.ndarray):
        return np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    encoded = [value.encode() if isinstance(value, str) else bytes(value) for value in values]
    return b"".join(part for text in encoded for part in (_LENGTH.pack(len(text)), text))


def arrow_datatype(kind: pa.DataType) -> tuple[str, list[int]]:
    """Return the datatype and the shape by which `said` gives outputs of `kind`."""
    shape = [-1]
    while pa.types.is_list(kind) or pa.types.is_large_list(kind):
        shape.append(-1)
        kind = kind.value_type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return _NAMES[np.dtype(kind.to_pandas_dtype()).name], shape
    return "BYTES", [-1]
