"""The Open Inference Protocol, version 2, over REST, with its binary tensor data extension.

Each column is one input tensor of shape [n] or [n, 1]. If all columns are numbers, they can also come as one tensor
[n, k] with any other name, columns in order. Models whose signature has tensors take those tensors.
https://github.com/kserve/open-inference-protocol
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np
import pyarrow as pa

from ..codecs.answer_columns import Values, output_columns
from ..codecs.checks import (
    EVENT_TIME,
    absent_columns,
    check_tensor_shapes,
    read_event_times,
    text_too_long,
    too_many_columns,
    too_many_rows,
)
from ..codecs.content_types import KEY, answer_content_type, decode_content, read_content_type
from ..codecs.json_strict import parse_json
from ..codecs.params import read_params
from ..codecs.tensors import (
    DATATYPES,
    NUMPY,
    PANDAS,
    Tensor,
    arrow_datatype,
    column_values,
    datatype_of,
    tensor_from_bytes,
    tensor_from_json,
    to_bytes,
    to_tensor,
)
from ..contract.field_errors import invalid_field, join_path, printable, raise_field_errors, show_value
from ..contract.model_contract import COLUMNAR_ROWS, Column, Contract
from ..http.content_negotiation import JSON, OCTETS, body_type
from ..http.errors import FieldError, Problem
from ..inference.batch import Batch
from ..settings import LimitSettings
from .base import DecodedRequest, EncodedResponse, InferenceProtocol, InferenceRequest, InferenceResult

if TYPE_CHECKING:
    from ..versions.model import ServedModel

HEADER_LENGTH = "Inference-Header-Content-Length"
_BODIES = (JSON, OCTETS)
# Parameters of a request that the server reads itself.
_RESERVED = frozenset({"binary_data_output", EVENT_TIME})
# Parameters of the protocol, of Triton and of MLServer; they are inference parameters only if the signature has them.
_PROTOCOL_PARAMETERS = frozenset(
    {
        *("binary_data", "classification", "content_type", "headers", "priority", "request_id"),
        *("sequence_end", "sequence_id", "sequence_start", "timeout"),
    }
)
_NUMBERS = frozenset({"integer", "long", "float", "double"})
_DIMENSIONS = 16
_NAMES = ("model_name", "model_version")
_dump = msgspec.json.Encoder().encode


def server_metadata() -> dict[str, Any]:
    """Return the answer to `GET /v2`."""
    return {"name": "tidemill", "version": version("tidemill"), "extensions": ["binary_tensor_data"]}


def model_metadata(model: ServedModel) -> dict[str, Any]:
    """Return the answer to `GET /v2/models/NAME`."""
    return {
        "name": model.info.model,
        "versions": [model.info.version],
        "platform": f"tidemill_{model.engine.name}",
        "inputs": [
            {"name": column.name, "datatype": datatype_of(column), "shape": list(column.shape) or [-1]}
            for column in model.contract.columns
        ],
        "outputs": output_tensors(model),
    }


def output_tensors(model: ServedModel) -> list[dict[str, Any]]:
    """Return name, datatype and shape of the outputs of `model`, as in its answer for its sample; none if unknown."""
    if model.tensors:
        return [dict(each) for each in model.tensors]
    if model.by_request or model.answer_type is None:
        return []
    datatype, shape = arrow_datatype(model.output_type.field(0).type)
    return [{"name": model.output, "datatype": datatype, "shape": shape}]


@dataclass(frozen=True)
class _OutputOptions:
    """How to encode the response to a request.

    Attributes:
        identifier: the request's `id`, which the response repeats.
        binary: whether outputs are binary tensor data.
        chosen: name -> whether it is binary, of the outputs that the request names; all outputs if it names none.
    """

    identifier: str | None
    binary: bool
    chosen: Mapping[str, bool]

    def encode(self, result: InferenceResult) -> EncodedResponse:
        """Return the response, with one tensor for each output."""
        info = result.model.info
        parameters = {"request_id": result.request_id}
        if result.client_request_id is not None:
            parameters["client_request_id"] = result.client_request_id
        document: dict[str, Any] = {"model_name": info.model, "model_version": info.version, "parameters": parameters}
        if self.identifier is not None:
            document["id"] = self.identifier
        outputs = document["outputs"] = list[dict[str, Any]]()
        binary: list[bytes] = []
        null: list[str] = []
        null_inside: list[str] = []
        tensors = {name: to_tensor(given) for name, given in self._columns(result)}
        content_type = parameters[KEY] = answer_content_type(result.outputs, list(tensors.values()))
        for name, (datatype, shape, values, own, has_replaced) in tensors.items():
            output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
            outputs.append(output)
            if has_replaced:
                null_inside.append(name)
            # As in MLServer, the columns of numbers of a frame have none.
            described: dict[str, Any] = {} if (content_type, own) == (PANDAS, NUMPY) else {KEY: own}
            if self.chosen.get(name, self.binary):
                binary.append(to_bytes(values))
                described["binary_data_size"] = len(binary[-1])
            if described:
                output["parameters"] = described
            if self.chosen.get(name, self.binary):
                continue
            output["data"] = values.reshape(-1).tolist() if isinstance(values, np.ndarray) else values
            if isinstance(values, np.ndarray) and values.dtype.kind == "f" and not np.isfinite(values).all():
                null.append(name)
        notes = [f"NaN and infinities are null in {', '.join(null)}; binary data has them"] if null else []
        if null_inside:
            notes.append(f"NaN and infinities are null in the JSON texts of {', '.join(null_inside)}")
        if notes:
            parameters["note"] = "; ".join(notes)
        if not binary:
            return EncodedResponse(_dump(document))
        head = _dump(document)
        return EncodedResponse(head + b"".join(binary), OCTETS, {HEADER_LENGTH: str(len(head))})

    def _columns(self, result: InferenceResult) -> list[tuple[str, Values]]:
        """Return the outputs that the request names, in its order."""
        columns = output_columns(result.outputs, result.model.output)
        if not self.chosen:
            return columns
        found = dict(columns)
        for at, name in enumerate(self.chosen):
            if name not in found:
                raise invalid_field(f"outputs[{at}].name", f"this answer has the outputs {', '.join(found)}")
        return [(name, found[name]) for name in self.chosen]


def decode(model: ServedModel, request: InferenceRequest, limits: LimitSettings) -> DecodedRequest:
    """Return the rows of a request and the encoder of its response.

    Raises:
        Problem: 400, 413, 415 or 422.
    """
    body_type(request.content_type, _BODIES)
    head, binary = _split_body(request)
    document = parse_json(head, depth=limits.depth, text=limits.text)
    unknown = [key for key in document if key not in ("id", "parameters", "inputs", "outputs", *_NAMES)]
    raise_field_errors([FieldError(printable(key), "unknown key") for key in unknown])
    _check_names(document, model)
    options = _output_options(document, model)
    content_type = read_content_type(_parameters(document, ""), "parameters")
    tensors = _tensors(document.get("inputs"), binary, content_type, limits)
    contract = model.contract
    whole = contract.is_tensor and len({tensor.shape[0] for tensor in tensors}) > 1
    rows = 1 if whole else _row_count(tensors, limits)
    parameters = _parameters(document, "")
    times = read_event_times(parameters.get(EVENT_TIME), rows)
    matrix = None if contract.is_tensor else _double_matrix(contract, tensors)
    if whole:
        # The tensors differ in length: together they are one request.
        arrays = {name: np.asarray(array) for name, array in _tensor_arrays(contract, tensors, limits).items()}
        batch = Batch(1, [(None,) * len(contract.columns)], tensors=arrays)
    elif contract.is_tensor:
        batch = Batch(rows, _tensor_rows(contract, tensors, rows, limits))
    elif matrix is not None:
        batch = contract.columnar_if_large(Batch(rows, list(map(tuple, matrix.tolist()))))
    else:
        batch = _batch(contract, tensors, rows, limits)
    batch.event_times, batch.params = times, _inference_params(contract, parameters)
    return DecodedRequest(batch, options.encode)


def _inference_params(contract: Contract, parameters: dict[str, Any]) -> Mapping[str, Any] | None:
    """Return the inference parameters among the `parameters` of a request; the others belong to the protocol."""
    names = {param.name for param in contract.params or ()}
    given = {
        key: value
        for key, value in parameters.items()
        if key not in _RESERVED and (key in names or key not in _PROTOCOL_PARAMETERS)
    }
    return read_params(contract, given, "parameters")


def _check_names(document: dict[str, Any], model: ServedModel) -> None:
    """Check the names of model and version, which KServe's client also writes into the body."""
    for key, served in zip(_NAMES, (model.info.model, model.info.version), strict=True):
        given = document.get(key)
        if given not in (None, served):
            raise invalid_field(key, f"this server serves {served}, got {show_value(given)}")


def _split_body(request: InferenceRequest) -> tuple[bytes, memoryview]:
    """Return the JSON and the binary part of a body."""
    given = request.headers.get(HEADER_LENGTH.lower())
    if given is None:
        return request.body, memoryview(b"")
    if not (given.isascii() and given.isdigit() and len(given) < 20 and int(given) <= len(request.body)):
        raise Problem(400, f"{HEADER_LENGTH}: expected the length of the JSON at the start of the body")
    return request.body[: int(given)], memoryview(request.body)[int(given) :]


def _parameters(member: dict[str, Any], at: str) -> dict[str, Any]:
    found = member.get("parameters")
    if found is not None and not isinstance(found, dict):
        raise invalid_field(join_path(at, "parameters"), "expected an object")
    return cast("dict[str, Any]", found or {})


def _flag(parameters: dict[str, Any], key: str, at: str) -> bool | None:
    found = parameters.get(key)
    if found is not None and not isinstance(found, bool):
        raise invalid_field(f"{at}.{key}", "expected true or false")
    return found


def _output_options(document: dict[str, Any], model: ServedModel) -> _OutputOptions:
    identifier = document.get("id")
    if identifier is not None and (not isinstance(identifier, str) or not _is_encodable(identifier)):
        raise invalid_field("id", "expected a string")
    binary = bool(_flag(_parameters(document, ""), "binary_data_output", "parameters"))
    outputs = document.get("outputs")
    outputs = [] if outputs is None else outputs
    # The answer of a whole request may have other outputs than the one for the sample.
    known = None if model.by_request or not model.answered else [each["name"] for each in output_tensors(model)]
    expected = "expected a list of outputs" if known is None else f"expected outputs of this model: {', '.join(known)}"
    if not isinstance(outputs, list):
        raise invalid_field("outputs", expected)
    chosen: dict[str, bool] = {}
    for at, output in enumerate(cast("list[Any]", outputs)):
        name = cast("dict[str, Any]", output).get("name") if isinstance(output, dict) else None
        if not isinstance(name, str) or (known is not None and name not in known):
            raise invalid_field(f"outputs[{at}]", expected)
        if name in chosen:
            raise invalid_field(f"outputs[{at}]", "duplicate output")
        parameters = _parameters(cast("dict[str, Any]", output), f"outputs[{at}]")
        if parameters.get("classification"):
            raise invalid_field(f"outputs[{at}].parameters.classification", "not supported")
        output_binary = _flag(parameters, "binary_data", f"outputs[{at}].parameters")
        chosen[name] = binary if output_binary is None else output_binary
    return _OutputOptions(identifier, binary, chosen)


def _is_encodable(text: str) -> bool:
    return text.isascii() or text.encode(errors="replace").decode() == text


def _tensors(inputs: Any, binary: memoryview, content_type: str, limits: LimitSettings) -> list[Tensor]:
    """Return the tensors of `inputs`; `content_type` is the request's, which an input's own overrides."""
    if not isinstance(inputs, list) or not inputs:
        raise invalid_field("inputs", "expected a list of at least one tensor")
    given = cast("list[Any]", inputs)
    if len(given) > limits.columns:
        raise too_many_columns(len(given), limits)
    tensors: list[Tensor] = []
    position = 0
    for index, member in enumerate(given):
        at = f"inputs[{index}]"
        if not isinstance(member, dict):
            raise invalid_field(at, "expected an object with name, datatype, shape and data")
        tensor = cast("dict[str, Any]", member)
        name, datatype, shape = _tensor_type(tensor, at)
        parameters = _parameters(tensor, at)
        own = read_content_type(parameters, f"{at}.parameters", content_type)
        size = parameters.get("binary_data_size")
        if size is None:
            decoded = tensor_from_json(name, datatype, shape, tensor.get("data"), at)
            tensors.append(decode_content(decoded, own, limits) if own else decoded)
            continue
        if "data" in tensor:
            raise invalid_field(f"{at}.data", "send either data or binary_data_size, not both")
        if type(size) is not int or not 0 <= size <= len(binary) - position:
            left = len(binary) - position
            raise invalid_field(f"{at}.parameters.binary_data_size", f"expected a size of at most {left} bytes")
        decoded = tensor_from_bytes(name, datatype, shape, binary[position : position + size], at)
        tensors.append(decode_content(decoded, own, limits) if own else decoded)
        position += size
    if position != len(binary):
        raise Problem(400, f"{len(binary) - position} bytes after the JSON belong to no input")
    seen: set[str] = set()
    errors: list[FieldError] = []
    for at, tensor in enumerate(tensors):
        if tensor.name in seen:
            errors.append(FieldError(f"inputs[{at}].name", "duplicate input"))
        seen.add(tensor.name)
    raise_field_errors(errors)
    return tensors


def _tensor_type(member: dict[str, Any], at: str) -> tuple[str, str, tuple[int, ...]]:
    known = ("name", "datatype", "shape", "data", "parameters")
    raise_field_errors([FieldError(join_path(at, key), "unknown key") for key in member if key not in known])
    name, datatype, shape = member.get("name"), member.get("datatype"), member.get("shape")
    if not isinstance(name, str):
        raise invalid_field(f"{at}.name", "expected a string")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise invalid_field(f"{at}.datatype", f"expected one of {', '.join(DATATYPES)}")
    sizes = cast("list[Any]", shape) if isinstance(shape, list) else []
    if not 0 < len(sizes) <= _DIMENSIONS or not all(type(size) is int and 0 < size < 1 << 63 for size in sizes):
        raise invalid_field(f"{at}.shape", "expected a list of positive integers")
    return name, datatype, tuple(sizes)


def _row_count(tensors: list[Tensor], limits: LimitSettings) -> int:
    rows = tensors[0].shape[0]
    for tensor in tensors:
        if tensor.shape[0] != rows:
            raise invalid_field(f"{tensor.at}.shape", f"has {tensor.shape[0]} rows; another input has {rows}")
    if rows > limits.rows:
        raise too_many_rows(rows, limits)
    return rows


def _columns(contract: Contract, tensors: list[Tensor], rows: int, limits: LimitSettings) -> list[Values]:
    """Return the values of each column; null for columns that the request does not have."""
    known = contract.positions
    first = tensors[0]
    if len(tensors) == 1 and first.name not in known:
        if len(contract.columns) == 1 and first.shape in ((rows,), (rows, 1)):
            return [column_values(contract.columns[0], first, limits, whole=True)]
        if len(first.shape) == 2:
            return _matrix(contract, first, limits)
    errors = [FieldError(f"{tensor.at}.name", "unknown column") for tensor in tensors if tensor.name not in known]
    errors += [
        FieldError(f"{tensor.at}.shape", f"expected [{rows}] or [{rows}, 1]")
        for tensor in tensors
        if tensor.shape not in ((rows,), (rows, 1))
    ]
    given = {tensor.name: tensor for tensor in tensors}
    errors += [
        FieldError(join_path("inputs", column.name), f"missing; expected {datatype_of(column)}")
        for column in contract.columns
        if column.required and column.name not in given
    ]
    raise_field_errors(errors)
    return [
        column_values(column, given[column.name], limits) if column.name in given else [None] * rows
        for column in contract.columns
    ]


def _double_matrix(contract: Contract, tensors: list[Tensor]) -> np.ndarray[Any, Any] | None:
    """Return the tensor of all columns if it needs no conversion, else None."""
    first = tensors[0]
    is_double_matrix = (
        len(tensors) == 1
        and first.datatype == "FP64"
        and first.shape[1:] == (len(contract.columns),)
        and first.name not in contract.positions
        and isinstance(first.flat, np.ndarray)
        and all(column.kind == "double" for column in contract.columns)
        and np.isfinite(first.flat).all()
    )
    return np.asarray(first.flat).reshape(first.shape) if is_double_matrix else None


def _matrix(contract: Contract, tensor: Tensor, limits: LimitSettings) -> list[Values]:
    rows, width = tensor.shape
    if not all(column.kind in _NUMBERS for column in contract.columns):
        raise invalid_field(f"{tensor.at}.name", "unknown column; a single tensor requires numeric columns only")
    if width != len(contract.columns):
        raise invalid_field(f"{tensor.at}.shape", f"expected [{rows}, {len(contract.columns)}]")
    flat = tensor.flat
    columns: list[Values] = []
    for position, column in enumerate(contract.columns):
        values = flat[position::width]
        one = Tensor(tensor.name, tensor.datatype, (rows,), tensor.at, values)
        columns.append(column_values(column, one, limits, whole=True))
    return columns


def _batch(contract: Contract, tensors: list[Tensor], rows: int, limits: LimitSettings) -> Batch:
    columns = _columns(contract, tensors, rows, limits)
    names = {tensor.name for tensor in tensors}
    # One matrix has all columns.
    absent = absent_columns(contract, names) if not names.isdisjoint(contract.positions) else frozenset[int]()
    if rows > COLUMNAR_ROWS and all(column.kind != "json" for column in contract.columns):
        arrays = [pa.array(values, kind) for values, kind in zip(columns, contract.schema.types, strict=True)]
        return Batch(rows, pa.RecordBatch.from_arrays(arrays, schema=contract.schema), absent=absent)
    plain = [values.tolist() if isinstance(values, np.ndarray) else values for values in columns]
    return contract.columnar_if_large(Batch(rows, list(zip(*plain, strict=True)), absent=absent))


def _tensor_rows(contract: Contract, tensors: list[Tensor], rows: int, limits: LimitSettings) -> list[tuple[Any, ...]]:
    arrays = _tensor_arrays(contract, tensors, limits)
    # The ellipsis keeps a single value an array.
    converted = [[arrays[name][row, ...] for row in range(rows)] for name in contract.names]
    return check_tensor_shapes(contract, list(zip(*converted, strict=True)), "inputs")


def _tensor_arrays(contract: Contract, tensors: list[Tensor], limits: LimitSettings) -> dict[str, np.ndarray[Any, Any]]:
    """Return the tensors of the signature, checked, by name."""
    given = {tensor.name: tensor for tensor in tensors}
    if len(tensors) == 1 and len(contract.columns) == 1:
        # MLServer's codecs for one array call it input-1.
        given = {contract.names[0]: tensors[0]}
        tensors = [replace(tensors[0], name=contract.names[0])]
    errors = [FieldError(f"{each.at}.name", "unknown input") for each in tensors if each.name not in contract.positions]
    errors += [FieldError(join_path("inputs", name), "missing") for name in contract.names if name not in given]
    raise_field_errors(errors)
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for column in contract.columns:
        tensor = given[column.name]
        expected, shape = column.shape, tensor.shape
        if len(expected) == 1 and shape[1:] == (1,):
            # MLServer's codecs write one value per row as [n, 1].
            shape = shape[:1]
        if len(expected) != len(shape) or any(size not in (-1, got) for size, got in zip(expected, shape, strict=True)):
            raise invalid_field(f"{tensor.at}.shape", f"expected {list(expected)}, where -1 is any size")
        if shape[0] > limits.rows:
            raise too_many_rows(shape[0], limits)
        arrays[column.name] = _tensor_array(column, tensor, limits).reshape(shape)
    return arrays


def _tensor_array(column: Column, tensor: Tensor, limits: LimitSettings) -> np.ndarray[Any, Any]:
    flat, datatype = tensor.flat, datatype_of(column)
    if datatype == "BYTES" and tensor.datatype == "BYTES":
        try:
            texts = [text.decode() if isinstance(text, bytes) else text for text in flat]
        except UnicodeDecodeError:
            raise invalid_field(tensor.at, "a string is not UTF-8") from None
        if all(isinstance(text, str) for text in texts):
            if any(len(text) > limits.text for text in texts):
                longest = max(len(text) for text in texts)
                raise invalid_field(tensor.at, str(text_too_long(longest, limits)))
            return np.array(texts, dtype=object if column.dtype == "object" else str)
    elif isinstance(flat, np.ndarray) and datatype != "BYTES" and np.can_cast(flat.dtype, column.dtype, "safe"):
        if flat.dtype.kind == "f" and not np.isfinite(flat).all():
            wrong = flat[~np.isfinite(flat)].tolist()[0]
            raise invalid_field(tensor.at, f"expected finite numbers, got {show_value(wrong)}")
        return flat.astype(column.dtype)
    raise invalid_field(tensor.at, f"expected {datatype} without nulls, got {tensor.datatype}")


PROTOCOL = InferenceProtocol("/v2/models/{model}/infer", decode)
