"""Reads and writes the tensors of the Open Inference Protocol."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..contract.columns import BITS, LARGEST, Column, InvalidValueError
from ..contract.field_errors import invalid_field, printable, show_value
from ..engines.outputs import plain
from ..http.errors import Problem
from ..inference.batch import Outputs
from ..settings import LimitSettings
from .answer_columns import Values, json_text, output_columns, text_with_nulls, without_non_finite
from .checks import text_too_long
from .json_strict import parse_any

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
BASE64, DATETIME, DICT, NUMPY, PANDAS, PANDAS_JSON, TEXT = "base64", "datetime", "dict", "np", "pd", "pd_json", "str"
CONTENT_TYPES = (BASE64, DATETIME, DICT, NUMPY, PANDAS, PANDAS_JSON, TEXT)
"""The content types of MLServer's codecs."""

_LENGTH = struct.Struct("<I")
_SMALL = 16
# Larger integers lose digits as floats.
_EXACT = 1 << 53


@dataclass(frozen=True)
class Tensor:
    """One input of a request.

    Attributes:
        at: its path in the request.
        flat: the values in row-major order: an array of the datatype, or a list of strings, bytes and nulls; with the
            content type `pd_json`, a list of JSON values.
        content_type: how the client's codec meant the values; empty if the request does not say.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    at: str
    flat: Values
    content_type: str = ""


def datatype_of(column: Column) -> str:
    """Return the protocol's datatype of `column`; times are RFC 3339 strings, JSON is a string."""
    return _NAMES[column.dtype] if column.kind == "tensor" else _KINDS.get(column.kind, "BYTES")


def tensor_from_json(name: str, datatype: str, shape: tuple[int, ...], data: Any, at: str) -> Tensor:
    """Return the tensor with the values of `data`, a flat or nested JSON list.

    Raises:
        Problem: 422: the values do not match the datatype or the shape.
    """
    flat: Any = data
    for outer, size in enumerate(shape[1:]):
        if not isinstance(flat, list) or not any(isinstance(item, list) for item in flat):
            break
        if not all(isinstance(item, list) and len(item) == size for item in flat) or (
            outer == 0 and len(flat) != shape[0]
        ):
            raise invalid_field(f"{at}.data", "expected a flat list of values, or lists nested like the shape")
        flat = [each for item in flat for each in item]
    if not isinstance(flat, list):
        raise invalid_field(f"{at}.data", "expected a list of values")
    _check_size(len(flat), shape, f"{at}.data")
    present = [value for value in flat if value is not None] if None in flat else flat
    try:
        values = Column(name, "tensor", dtype=DATATYPES[datatype], shape=(-1,)).array(present) if present else []
    except InvalidValueError as error:
        raise invalid_field(f"{at}.data", str(error)) from None
    # Strings stay as received; the column converts them.
    return Tensor(name, datatype, shape, at, flat if datatype == "BYTES" or len(present) != len(flat) else values)


def tensor_from_bytes(name: str, datatype: str, shape: tuple[int, ...], data: memoryview, at: str) -> Tensor:
    """Return the tensor with the values of `data`, encoded by the binary extension.

    Raises:
        Problem: 422: the bytes do not match the datatype or the shape.
    """
    if datatype == "BYTES":
        texts = _split_texts(data, at)
        _check_size(len(texts), shape, at)
        return Tensor(name, datatype, shape, at, texts)
    dtype = np.dtype(DATATYPES[datatype]).newbyteorder("<")
    count = math.prod(shape)
    if count * dtype.itemsize != len(data):
        size = count * dtype.itemsize
        raise invalid_field(at, f"the shape {list(shape)} of {datatype} needs {size} bytes, got {len(data)}")
    if datatype == "BOOL":
        numbers = np.frombuffer(data, np.uint8)
        if numbers.size and int(numbers.max()) > 1:
            raise invalid_field(at, "expected BOOL bytes of 0 or 1")
    return Tensor(name, datatype, shape, at, np.frombuffer(data, dtype).astype(dtype.newbyteorder("=")))


def _split_texts(data: memoryview, at: str) -> list[bytes]:
    texts: list[bytes] = []
    position = 0
    while position < len(data):
        if position + _LENGTH.size > len(data):
            raise invalid_field(at, "the data ends inside a length")
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        if length > len(data) - position:
            raise invalid_field(at, f"a length of {length} bytes exceeds the remaining {len(data) - position} bytes")
        texts.append(bytes(data[position : position + length]))
        position += length
    return texts


def _check_size(values: int, shape: tuple[int, ...], at: str) -> None:
    if (count := math.prod(shape)) != values:
        raise invalid_field(at, f"the shape {list(shape)} needs {count} values, got {values}")


def column_values(column: Column, tensor: Tensor, limits: LimitSettings, *, whole: bool = False) -> Values:
    """Return the values of `tensor` converted for `column`: an array without nulls, or a list.

    Args:
        column: a column that does not take tensors.
        tensor: one value per row.
        limits: on strings.
        whole: accept whole floats for integers, as in a matrix of all columns.

    Raises:
        Problem: 422: a value is invalid.
    """
    flat = tensor.flat
    try:
        if isinstance(flat, list):
            return [_convert_value(column, tensor, value, limits, whole=whole) for value in flat]
        return _convert_array(column, flat, whole=whole)
    except InvalidValueError as error:
        raise invalid_field(tensor.at, str(error)) from None


def _convert_value(column: Column, tensor: Tensor, value: Any, limits: LimitSettings, *, whole: bool) -> Any:
    content_type = tensor.content_type
    if content_type == PANDAS_JSON and tensor.datatype == "BYTES":
        return column.convert(value)
    if isinstance(value, bytes):
        if column.kind == "binary":
            return value
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise InvalidValueError(f"{printable(column.name)} is not UTF-8, got {show_value(value)}") from None
        if len(value) > limits.text:
            raise text_too_long(len(value), limits)
    elif value is not None and tensor.datatype != "BYTES":
        # Numbers of the datatype, in a list because others are null.
        array = _convert_array(column, np.array([value], DATATYPES[tensor.datatype]), whole=whole)
        return array.tolist()[0] if isinstance(array, np.ndarray) else array[0]
    if content_type == DATETIME and column.kind == "datetime" and isinstance(value, str):
        value = _with_zone(value)
    is_plain_text = content_type == TEXT and (column.spec or {}).get("type") == "any"
    if column.kind == "json" and isinstance(value, str) and not is_plain_text:
        try:
            value = parse_any(value, depth=limits.depth, text=limits.text)
        except Problem as problem:
            raise InvalidValueError(f"{printable(column.name)}: {problem.detail}") from None
    return column.convert(value)


def _with_zone(text: str) -> str:
    """Return the time `text` in UTC if it has no zone: MLServer's codec writes Python's times without one."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return text if moment.tzinfo is not None else moment.replace(tzinfo=UTC).isoformat()


def _convert_array(column: Column, array: np.ndarray[Any, Any], *, whole: bool) -> Values:
    kind, of, name = column.kind, array.dtype.kind, printable(column.name)
    if kind in LARGEST and of in "fiu":
        if array.size <= _SMALL:
            # For a few numbers, Python is faster than numpy.
            small: list[float] = [float(number) for number in array.tolist()]
            if all(abs(number) <= LARGEST[kind] for number in small):
                return small
        numbers = array.astype(np.float64)
        missing = np.isnan(numbers)
        too_large = np.abs(numbers) > LARGEST[kind]
        if too_large.any():
            raise InvalidValueError(f"{name} is out of range for {kind}, got {_first(array, too_large)}")
        if missing.any():
            if column.required:
                raise InvalidValueError(f"{name} must not be NaN")
            # A numeric tensor has no null; NaN stands for it.
            return [None if number != number else number for number in numbers.tolist()]
        return numbers
    if kind in BITS and (of in "iu" or (whole and of == "f")):
        low, high = -(1 << BITS[kind]), (1 << BITS[kind]) - 1
        values: list[Any] = array.tolist()
        if of == "f":
            if not column.required:
                values = [None if number != number else number for number in values]
            for number in values:
                if number is not None and not (abs(number) < 1 << 53 and number.is_integer()):
                    raise InvalidValueError(f"{name} must be {column.expected}, got {show_value(number)}")
            values = [None if number is None else int(number) for number in values]
        for number in values:
            if number is not None and not low <= number <= high:
                raise InvalidValueError(f"{name} is out of range for {kind}, got {show_value(number)}")
        return values if None in values else np.array(values, np.int64)
    if kind == "boolean" and of == "b":
        return array
    got = f"{_NAMES[array.dtype.name]}, such as {show_value(array.tolist()[0])}"
    raise InvalidValueError(f"{name} must be {datatype_of(column)}, got {got}")


def _first(array: np.ndarray[Any, Any], wrong: np.ndarray[Any, Any]) -> str:
    return show_value(array[wrong].tolist()[0])


class OutputTensor(NamedTuple):
    """A column of outputs as a tensor.

    Attributes:
        values: in row-major order.
        content_type: with which codec MLServer's clients decode it.
        has_replaced: the values are JSON in which null replaces NaN and infinities.
    """

    datatype: str
    shape: list[int]
    values: Values
    content_type: str
    has_replaced: bool = False


def to_tensor(outputs: Values) -> OutputTensor:
    """Return a column of outputs as a tensor.

    An array keeps its datatype. A list of numbers of one type is INT64, UINT64, FP64 or BOOL; nulls in it are NaN.
    Text and times are BYTES: text as it is, times in ISO 8601. Everything else is JSON in BYTES.
    """
    if isinstance(outputs, np.ndarray) and outputs.dtype.name in _NAMES and outputs.dtype != object:
        return OutputTensor(_NAMES[outputs.dtype.name], list(outputs.shape), outputs, NUMPY)
    values = plain(outputs) if isinstance(outputs, np.ndarray) else outputs
    shape, flat = _shape_and_leaves(values)
    array = _numbers(flat)
    if array is not None:
        return OutputTensor(_NAMES[array.dtype.name], shape, array, NUMPY)
    flat = text_with_nulls(flat)
    if set(map(type, flat)) <= {str, type(None)}:
        # MLServer's codec of times takes no null.
        is_time = isinstance(outputs, np.ndarray) and outputs.dtype.kind == "M" and None not in flat
        return OutputTensor("BYTES", shape, flat, DATETIME if is_time else TEXT)
    # Text too: the text "1" is not the number 1.
    texts = [json_text(value) for value in values]
    return OutputTensor("BYTES", [len(values)], texts, PANDAS_JSON, without_non_finite(values) != values)


def output_tensors(outputs: Outputs, output: str) -> list[dict[str, Any]]:
    """Return name, datatype and shape of the tensors of `outputs`; a size that depends on the request is -1."""
    found: list[dict[str, Any]] = []
    for name, values in output_columns(outputs, output):
        tensor = to_tensor(values)
        found.append({"name": name, "datatype": tensor.datatype, "shape": [-1, *tensor.shape[1:]]})
    return found


def _shape_and_leaves(values: list[Any]) -> tuple[list[int], list[Any]]:
    """Return the shape and the innermost values of lists of equal lengths, as far as they are nested equally."""
    shape, flat = [len(values)], values
    while flat and all(type(each) is list for each in flat) and len({len(each) for each in flat}) == 1:
        shape.append(len(flat[0]))
        flat = [value for each in flat for value in each]
    return shape, flat


def _numbers(values: list[Any]) -> np.ndarray[Any, Any] | None:
    """Return numbers or booleans as an array, or None if the values are others or would lose digits."""
    kinds = set(map(type, values))
    if kinds == {bool}:
        return np.array(values, np.bool_)
    if kinds == {int}:
        for dtype in (np.int64, np.uint64):
            try:
                return np.array(values, dtype)
            except OverflowError:
                continue
        return None
    is_number = bool(kinds & {int, float}) and kinds <= {int, float, type(None)}
    if is_number and all(type(value) is not int or abs(value) <= _EXACT for value in values):
        return np.array([math.nan if value is None else value for value in values], np.float64)
    return None


def to_bytes(values: Values) -> bytes:
    """Return `values` encoded by the binary extension, which has no null: it becomes an empty string."""
    if isinstance(values, np.ndarray):
        return np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    encoded = [value.encode() if isinstance(value, str) else bytes(value or b"") for value in values]
    return b"".join(part for text in encoded for part in (_LENGTH.pack(len(text)), text))


def arrow_datatype(kind: pa.DataType) -> tuple[str, list[int]]:
    """Return the datatype and the shape that `to_tensor` returns for outputs of `kind`."""
    shape = [-1]
    while pa.types.is_list(kind) or pa.types.is_large_list(kind):
        shape.append(-1)
        kind = kind.value_type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return _NAMES[np.dtype(kind.to_pandas_dtype()).name], shape
    return "BYTES", [-1]
