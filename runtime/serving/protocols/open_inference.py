"""The Open Inference Protocol, version 2, over REST, with its binary tensor data.

Inputs are one tensor a column, of the shape [n] or [n, 1], or, where all columns are numbers, one tensor [n, k] of any
other name with the columns in their order. A model whose signature holds tensors takes these.
https://github.com/kserve/open-inference-protocol, and for binary data
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np
import pyarrow as pa

from ..codecs.json_exact import checked_rows, read_event_times
from ..codecs.json_strict import join, named, parse_json, refuse, wrong
from ..codecs.tensors import (
    DATATYPES,
    Tensor,
    Values,
    arrow_datatype,
    bytes_of,
    column_values,
    datatype_of,
    from_bytes,
    from_data,
    said,
)
from ..contract.model_contract import MANY, Column, Contract
from ..http.content_negotiation import JSON, OCTETS, body_type
from ..http.errors import FieldError, Problem
from ..inference.batch import Batch
from ..settings import LimitSettings
from .base import Answered, Decoded, Encoded, Incoming

if TYPE_CHECKING:
    from ..versions.model import ServedModel

__all__ = ["HEADER_LENGTH", "decode", "model_metadata", "server_metadata"]

HEADER_LENGTH = "Inference-Header-Content-Length"
_BODIES = (JSON, OCTETS)
_NUMBERS = frozenset({"integer", "long", "float", "double"})
_DIMENSIONS = 16
_dump = msgspec.json.Encoder().encode


def server_metadata() -> dict[str, Any]:
    """Return the answer to `GET /v2`."""
    return {"name": "tidemill", "version": version("tidemill"), "extensions": ["binary_tensor_data"]}


def model_metadata(model: ServedModel) -> dict[str, Any]:
    """Return the answer to `GET /v2/models/NAME`."""
    datatype, shape = arrow_datatype(model.output_type.field(0).type)
    return {
        "name": model.info.model,
        "versions": [model.info.version],
        "platform": f"tidemill_{model.engine.name}",
        "inputs": [
            {"name": column.name, "datatype": datatype_of(column), "shape": list(column.shape) or [-1]}
            for column in model.contract.columns
        ],
        "outputs": [{"name": model.output, "datatype": datatype, "shape": shape}],
    }


@dataclass(frozen=True)
class _Wish:
    """How a request wants its answer."""

    identifier: str | None
    binary: bool

    def encode(self, answered: Answered) -> Encoded:
        """Say the outputs as one tensor."""
        info = answered.model.info
        datatype, shape, values = said(answered.outputs)
        output: dict[str, Any] = {"name": answered.model.output, "datatype": datatype, "shape": shape}
        parameters = {"request_id": answered.request_id}
        if answered.client_request_id is not None:
            parameters["client_request_id"] = answered.client_request_id
        document: dict[str, Any] = {"model_name": info.model, "model_version": info.version, "parameters": parameters}
        if self.identifier is not None:
            document["id"] = self.identifier
        document["outputs"] = [output]
        if not self.binary:
            output["data"] = values.reshape(-1).tolist() if isinstance(values, np.ndarray) else values
            return Encoded(_dump(document))
        data = bytes_of(values)
        output["parameters"] = {"binary_data_size": len(data)}
        head = _dump(document)
        return Encoded(head + data, OCTETS, {HEADER_LENGTH: str(len(head))})


def decode(model: ServedModel, incoming: Incoming, limits: LimitSettings) -> Decoded:
    """Return the rows of a request to `/v2/models/NAME/infer`, and how it wants to be answered.

    Raises:
        Problem: 400, 413, 415 or 422.
    """
    body_type(incoming.content_type, _BODIES)
    head, binary = _framed(incoming)
    document = parse_json(head, depth=limits.depth, text=limits.text)
    unknown = [key for key in document if key not in ("id", "parameters", "inputs", "outputs")]
    refuse([FieldError(named(key), "unknown key") for key in unknown])
    wish = _wish(document, model.output)
    tensors = _tensors(document.get("inputs"), binary, limits)
    contract = model.contract
    rows = _row_count(tensors, limits)
    times = read_event_times(_parameters(document, "").get("event_time"), rows)
    if contract.is_tensor:
        return Decoded(Batch(rows, _tensor_rows(contract, tensors, rows, limits), times), wish.encode)
    matrix = _doubles(contract, tensors)
    if matrix is not None:
        return Decoded(contract.packed(Batch(rows, list(map(tuple, matrix.tolist())), times)), wish.encode)
    return Decoded(_batch(contract, _columns(contract, tensors, rows, limits), rows, times), wish.encode)


def _framed(incoming: Incoming) -> tuple[bytes, memoryview]:
    """Return the JSON and the binary half of a body."""
    given = incoming.headers.get(HEADER_LENGTH.lower())
    if given is None:
        return incoming.body, memoryview(b"")
    if not (given.isascii() and given.isdigit() and len(given) < 20 and int(given) <= len(incoming.body)):
        raise Problem(400, f"{HEADER_LENGTH}: wants the length of the JSON at the start of the body")
    return incoming.body[: int(given)], memoryview(incoming.body)[int(given) :]


def _parameters(member: dict[str, Any], at: str) -> dict[str, Any]:
    found = member.get("parameters")
    if found is not None and not isinstance(found, dict):
        raise wrong(join(at, "parameters"), "wants an object")
    return cast("dict[str, Any]", found or {})


def _flag(parameters: dict[str, Any], key: str, at: str) -> bool | None:
    found = parameters.get(key)
    if found is not None and not isinstance(found, bool):
        raise wrong(f"{at}.{key}", "wants true or false")
    return found


def _wish(document: dict[str, Any], name: str) -> _Wish:
    identifier = document.get("id")
    if identifier is not None and (not isinstance(identifier, str) or not _sayable(identifier)):
        raise wrong("id", "wants a string")
    binary = _flag(_parameters(document, ""), "binary_data_output", "parameters")
    outputs = document.get("outputs", [])
    if not isinstance(outputs, list) or len(cast("list[Any]", outputs)) > 1:
        raise wrong("outputs", f"wants a list with the one output of this model, {name}")
    for output in cast("list[Any]", outputs):
        if not isinstance(output, dict) or cast("dict[str, Any]", output).get("name") != name:
            raise wrong("outputs[0]", f"wants the one output of this model, {name}")
        parameters = _parameters(cast("dict[str, Any]", output), "outputs[0]")
        if parameters.get("classification"):
            raise wrong("outputs[0].parameters.classification", "is not offered")
        wanted = _flag(parameters, "binary_data", "outputs[0].parameters")
        binary = binary if wanted is None else wanted
    return _Wish(identifier, bool(binary))


def _sayable(text: str) -> bool:
    return text.isascii() or text.encode(errors="replace").decode() == text


def _tensors(inputs: Any, binary: memoryview, limits: LimitSettings) -> list[Tensor]:
    if not isinstance(inputs, list) or not inputs:
        raise wrong("inputs", "wants a list of at least one tensor")
    given = cast("list[Any]", inputs)
    if len(given) > limits.columns:
        raise Problem(413, f"{len(given)} inputs are more than the {limits.columns} which one request may have")
    tensors: list[Tensor] = []
    position = 0
    for index, member in enumerate(given):
        at = f"inputs[{index}]"
        if not isinstance(member, dict):
            raise wrong(at, "wants an object with name, datatype, shape and data")
        described = cast("dict[str, Any]", member)
        name, datatype, shape = _described(described, at)
        size = _parameters(described, at).get("binary_data_size")
        if size is None:
            tensors.append(from_data(name, datatype, shape, described.get("data"), at))
            continue
        if "data" in described:
            raise wrong(f"{at}.data", "send either data or binary_data_size")
        if type(size) is not int or not 0 <= size <= len(binary) - position:
            left = len(binary) - position
            raise wrong(f"{at}.parameters.binary_data_size", f"wants a number of bytes, of which {left} are left")
        tensors.append(from_bytes(name, datatype, shape, binary[position : position + size], at))
        position += size
    if position != len(binary):
        raise Problem(400, f"{len(binary) - position} bytes follow the JSON which no input names")
    names = [tensor.name for tensor in tensors]
    refuse([FieldError(f"inputs[{at}].name", "twice") for at, name in enumerate(names) if name in names[:at]])
    return tensors


def _described(member: dict[str, Any], at: str) -> tuple[str, str, tuple[int, ...]]:
    known = ("name", "datatype", "shape", "data", "parameters")
    refuse([FieldError(join(at, key), "unknown key") for key in member if key not in known])
    name, datatype, shape = member.get("name"), member.get("datatype"), member.get("shape")
    if not isinstance(name, str):
        raise wrong(f"{at}.name", "wants a string")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise wrong(f"{at}.datatype", f"wants one of {', '.join(DATATYPES)}")
    sizes = cast("list[Any]", shape) if isinstance(shape, list) else []
    if not 0 < len(sizes) <= _DIMENSIONS or not all(type(size) is int and 0 < size < 1 << 63 for size in sizes):
        raise wrong(f"{at}.shape", "wants a list of positive integers")
    return name, datatype, tuple(sizes)


def _row_count(tensors: list[Tensor], limits: LimitSettings) -> int:
    rows = tensors[0].shape[0]
    for tensor in tensors:
        if tensor.shape[0] != rows:
            raise wrong(f"{tensor.at}.shape", f"has {tensor.shape[0]} rows where another input has {rows}")
    if rows > limits.rows:
        raise Problem(413, f"{rows} rows are more than the {limits.rows} which one request may have")
    return rows


def _columns(contract: Contract, tensors: list[Tensor], rows: int, limits: LimitSettings) -> list[Values]:
    known = contract.positions
    first = tensors[0]
    if len(tensors) == 1 and first.name not in known and len(first.shape) == 2:
        return _matrix(contract, first, limits)
    errors = [FieldError(f"{tensor.at}.name", "unknown column") for tensor in tensors if tensor.name not in known]
    errors += [
        FieldError(f"{tensor.at}.shape", f"wants [{rows}] or [{rows}, 1]")
        for tensor in tensors
        if tensor.shape not in ((rows,), (rows, 1))
    ]
    given = {tensor.name: tensor for tensor in tensors}
    errors += [
        FieldError(join("inputs", column.name), f"missing; wants {datatype_of(column)}")
        for column in contract.columns
        if column.required and column.name not in given
    ]
    refuse(errors)
    return [
        column_values(column, given[column.name], limits) if column.name in given else [None] * rows
        for column in contract.columns
    ]


def _doubles(contract: Contract, tensors: list[Tensor]) -> np.ndarray[Any, Any] | None:
    """Return the one tensor of all columns where it needs no look at each of them, else None."""
    first = tensors[0]
    usual = (
        len(tensors) == 1
        and first.datatype == "FP64"
        and first.shape[1:] == (len(contract.columns),)
        and first.name not in contract.positions
        and isinstance(first.flat, np.ndarray)
        and all(column.kind == "double" for column in contract.columns)
        and np.isfinite(first.flat).all()
    )
    return np.asarray(first.flat).reshape(first.shape) if usual else None


def _matrix(contract: Contract, tensor: Tensor, limits: LimitSettings) -> list[Values]:
    rows, width = tensor.shape
    if not all(column.kind in _NUMBERS for column in contract.columns):
        raise wrong(f"{tensor.at}.name", "unknown column; one tensor for all columns wants columns of numbers alone")
    if width != len(contract.columns):
        raise wrong(f"{tensor.at}.shape", f"wants [{rows}, {len(contract.columns)}]")
    flat = tensor.flat
    columns: list[Values] = []
    for position, column in enumerate(contract.columns):
        values = flat[position::width]
        one = Tensor(tensor.name, tensor.datatype, (rows,), tensor.at, values)
        columns.append(column_values(column, one, limits, whole=True))
    return columns


def _batch(contract: Contract, columns: list[Values], rows: int, times: Any) -> Batch:
    if rows > MANY and all(column.kind != "json" for column in contract.columns):
        arrays = [pa.array(values, kind) for values, kind in zip(columns, contract.schema.types, strict=True)]
        return Batch(rows, pa.RecordBatch.from_arrays(arrays, schema=contract.schema), times)
    plain = [values.tolist() if isinstance(values, np.ndarray) else values for values in columns]
    return contract.packed(Batch(rows, list(zip(*plain, strict=True)), times))


def _tensor_rows(contract: Contract, tensors: list[Tensor], rows: int, limits: LimitSettings) -> list[tuple[Any, ...]]:
    given = {tensor.name: tensor for tensor in tensors}
    errors = [FieldError(f"{each.at}.name", "unknown input") for each in tensors if each.name not in contract.positions]
    errors += [FieldError(join("inputs", name), "missing") for name in contract.names if name not in given]
    refuse(errors)
    held: list[Any] = []
    for column in contract.columns:
        tensor = given[column.name]
        wanted, shape = column.shape[1:], tensor.shape[1:]
        if len(wanted) != len(shape) or any(size not in (-1, got) for size, got in zip(wanted, shape, strict=True)):
            raise wrong(f"{tensor.at}.shape", f"wants {[rows, *wanted]}")
        array = _typed(column, tensor, limits).reshape(tensor.shape)
        # With the dots even one value is an array.
        held.append([array[row, ...] for row in range(rows)])
    return checked_rows(contract, list(zip(*held, strict=True)), "inputs")


def _typed(column: Column, tensor: Tensor, limits: LimitSettings) -> np.ndarray[Any, Any]:
    flat, wanted = tensor.flat, datatype_of(column)
    if wanted == "BYTES" and tensor.datatype == "BYTES":
        try:
            texts = [text.decode() if isinstance(text, bytes) else text for text in flat]
        except UnicodeDecodeError:
            raise wrong(tensor.at, "a text is not UTF-8") from None
        if all(isinstance(text, str) for text in texts):
            if any(len(text) > limits.text for text in texts):
                raise wrong(tensor.at, f"a text has more than {limits.text} characters")
            return np.array(texts, dtype=object if column.dtype == "object" else str)
    elif isinstance(flat, np.ndarray) and wanted != "BYTES" and np.can_cast(flat.dtype, column.dtype, "safe"):
        if flat.dtype.kind == "f" and not np.isfinite(flat).all():
            raise wrong(tensor.at, "wants finite numbers")
        return flat.astype(column.dtype)
    raise wrong(tensor.at, f"wants {wanted} without nulls, got {tensor.datatype}")
