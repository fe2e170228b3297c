"""The Open Inference Protocol, with the real client's own bodies."""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tidemill.runtime.serving.contract.model_contract import Column, Contract
from tidemill.runtime.serving.engines.outputs import Answer
from tidemill.runtime.serving.http.errors import Problem
from tidemill.runtime.serving.inference.batch import Batch
from tidemill.runtime.serving.protocols import open_inference
from tidemill.runtime.serving.protocols.base import EncodedResponse, InferenceRequest, InferenceResult
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult

from tests.support.protocols import LIMITS, MIXED, NUMBERS, ROW, served

LENGTH = "inference-header-content-length"


def decode(document: Any, binary: bytes = b"", contract: Contract = MIXED, **headers: str) -> Batch:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    if binary:
        headers.setdefault(LENGTH, str(len(body)))
    return open_inference.decode(served(contract), InferenceRequest(body + binary, "", "", headers), LIMITS).batch


def refused(document: Any, binary: bytes = b"", contract: Contract = MIXED, **headers: str) -> tuple[int, list[str]]:
    with pytest.raises(Problem) as caught:
        decode(document, binary, contract, **headers)
    return caught.value.status, [error.field for error in caught.value.errors]


def tensor(name: str, datatype: str, data: list[Any], shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": data}


def numbers(**changes: dict[str, Any]) -> dict[str, Any]:
    inputs = {name: tensor(name, "FP64", [1.0, 2.0]) for name in "abc"} | changes
    return {"inputs": [value for value in inputs.values() if value]}


def test_metadata_names_all_columns_and_the_output() -> None:
    assert open_inference.server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = open_inference.model_metadata(served(MIXED, output="scores", kind=pa.list_(pa.float64())))
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == ("flights", ["3"], "tidemill_present")
    assert {each["name"]: each["datatype"] for each in metadata["inputs"]} == {
        "distance": "FP64", "temp": "FP64", "carrier": "BYTES", "note": "BYTES", "seats": "INT64", "small": "INT32",
        "half": "FP32", "night": "BOOL", "built": "BYTES", "blob": "BYTES",
    }  # fmt: skip
    assert metadata["inputs"][0]["shape"] == [-1]
    assert metadata["outputs"] == [{"name": "scores", "datatype": "FP64", "shape": [-1, -1]}]
    images = Contract((Column("x", "tensor", dtype="uint8", shape=(-1, 8, 8)),))
    assert open_inference.model_metadata(served(images, kind=pa.string())) | {"versions": []} == {
        "name": "flights",
        "versions": [],
        "platform": "tidemill_present",
        "inputs": [{"name": "x", "datatype": "UINT8", "shape": [-1, 8, 8]}],
        "outputs": [{"name": "prediction", "datatype": "BYTES", "shape": [-1]}],
    }


def test_columns_come_as_tensors() -> None:
    inputs = [
        tensor(column.name, datatype, [ROW[column.name]])
        for column, datatype in zip(
            MIXED.columns,
            ["FP64", "FP64", "BYTES", "BYTES", "INT64", "INT32", "FP32", "BOOL", "BYTES", "BYTES"],
            strict=True,
        )
    ]
    wanted = [(1.5, None, "UA", "so, it is", 3, -1, 0.5, True, datetime(2013, 7, 1, 12, tzinfo=UTC), b"\x00\x01\xff")]
    assert decode({"inputs": inputs}).values == wanted
    assert decode({"inputs": inputs[::-1]}).values == wanted
    assert decode({"inputs": [{**each, "shape": [1, 1]} for each in inputs]}).values == wanted
    assert decode({"inputs": [{**each, "shape": [1, 1], "data": [each["data"]]} for each in inputs]}).values == wanted
    some = [each for each in inputs if each["name"] in ("distance", "carrier", "seats")]
    assert decode({"inputs": some}).values == [(1.5, None, "UA", None, 3, None, None, None, None, None)]
    wider = [tensor("distance", "INT8", [-3]), tensor("carrier", "BYTES", ["UA"]), tensor("seats", "UINT64", [7])]
    assert decode({"inputs": wider}).values[0][:5] == (-3.0, None, "UA", None, 7)
    timed = {"inputs": wider, "parameters": {"event_time": "2013-07-01T12:00:00Z"}, "id": "a"}
    assert decode(timed).event_times == [datetime(2013, 7, 1, 12, tzinfo=UTC)]


def test_one_tensor_may_hold_all_columns_of_numbers() -> None:
    rows = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.5]]
    for data in ([1, 2, 3, 4, 5, 6.5], rows):
        given = {"inputs": [tensor("features", "FP64", data, [2, 3])]}
        assert decode(given, contract=NUMBERS).values == [tuple(row) for row in rows]
    whole = Contract((Column("a", "long"), Column("b", "double", required=False)))
    assert decode({"inputs": [tensor("x", "FP32", [3, None], [1, 2])]}, contract=whole).values == [(3, None)]
    binary = np.array([[3, np.nan]], "<f4").tobytes()
    given = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}]}
    assert decode(given, binary, whole).values == [(3, None)]
    missing = Contract((Column("a", "long", required=False), Column("b", "double")))
    binary = np.array([[np.nan, 1], [2, 1]]).tobytes()
    given = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [2, 2], "parameters": {"binary_data_size": 32}}]}
    assert decode(given, binary, missing).values == [(None, 1.0), (2, 1.0)]
    assert refused(given, binary, whole)[0] == 422
    for data, shape, contract in (
        ([3.5, 1], [1, 2], whole),
        ([1e30, 1], [1, 2], whole),
        ([1, 2, 3], [1, 3], whole),
        ([1] * 10, [1, 10], MIXED),
    ):
        assert refused({"inputs": [tensor("x", "FP64", data, shape)]}, contract=contract)[0] == 422


def test_tensors_of_a_signature_are_taken_as_they_are() -> None:
    contract = Contract(
        (
            Column("x", "tensor", dtype="float64", shape=(-1, 2)),
            Column("t", "tensor", dtype="str", shape=(-1,)),
            Column("o", "tensor", dtype="object", shape=(-1, 1)),
        )
    )
    given = {
        "inputs": [
            tensor("t", "BYTES", ["a", "é"]),
            tensor("o", "BYTES", [["b"], ["c"]], [2, 1]),
            tensor("x", "FP32", [1, 2, 3, 4], [2, 2]),
        ]
    }
    arrays = contract.to_pandas(decode(given, contract=contract))
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "x": [[1.0, 2.0], [3.0, 4.0]],
        "t": ["a", "é"],
        "o": [["b"], ["c"]],
    }
    assert arrays["x"].dtype == np.float64
    for change, field in (
        (tensor("x", "FP64", [1, 2, 3], [1, 3]), "inputs[2].shape"),
        (tensor("x", "INT64", [1, 2, 3, None], [2, 2]), "inputs[2]"),
        (tensor("x", "BYTES", ["a", "b", "c", "d"], [2, 2]), "inputs[2]"),
        (tensor("y", "FP64", [1, 2, 3, 4], [2, 2]), "inputs[2].name"),
    ):
        inputs = [*given["inputs"][:2], change]
        status, fields = refused({"inputs": inputs}, contract=contract)
        assert (status, field in fields) == (422, True)


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"a": tensor("a", "FP64", [1.0])}, 422, "inputs[1].shape"),
        ({"a": tensor("a", "FP64", [1.0], [2])}, 422, "inputs[0].data"),
        ({"a": tensor("a", "FP64", [[1.0], [2.0]])}, 422, "inputs[0].data"),
        ({"a": tensor("a", "FP64", [[1.0], [2.0, 3.0]], [2, 2])}, 422, "inputs[0].data"),
        ({"a": tensor("a", "FP64", [[1.0], 2.0], [2, 1])}, 422, "inputs[0].data"),
        ({"a": tensor("a", "FP64", [1.0] * 4, [2, 2])}, 422, "inputs[0].shape"),
        ({"a": tensor("a", "FP64", [1.0, None])}, 422, "inputs[0]"),
        ({"a": tensor("a", "FP64", [1.0, "2"])}, 422, "inputs[0].data"),
        ({"a": tensor("a", "FP64", [1.0, True])}, 422, "inputs[0].data"),
        ({"a": tensor("a", "FP32", [1.0, 1e39])}, 422, "inputs[0].data"),
        ({"a": tensor("a", "INT8", [1, 128])}, 422, "inputs[0].data"),
        ({"a": tensor("a", "UINT8", [1, -1])}, 422, "inputs[0].data"),
        ({"a": tensor("a", "INT64", [1, 10**30])}, 422, "inputs[0].data"),
        ({"a": tensor("a", "INT64", [1, 1.5])}, 422, "inputs[0].data"),
        ({"a": tensor("a", "BOOL", [True, False])}, 422, "inputs[0]"),
        ({"a": tensor("a", "BYTES", ["1", "2"])}, 422, "inputs[0]"),
        ({"a": tensor("a", "FP80", [1.0, 2.0])}, 422, "inputs[0].datatype"),
        ({"a": tensor("a", "FP64", [], [0])}, 422, "inputs[0].shape"),
        ({"a": tensor("a", "FP64", [], [2**62, 2**62])}, 422, "inputs[0].data"),
        ({"a": tensor("a", "FP64", [1.0, 2.0], [True])}, 422, "inputs[0].shape"),
        ({"a": {"name": "a", "datatype": "FP64", "shape": [2]}}, 422, "inputs[0].data"),
        ({"a": {"name": "a", "datatype": "FP64", "shape": [2], "data": {"0": 1}}}, 422, "inputs[0].data"),
        ({"a": {**tensor("a", "FP64", [1.0, 2.0]), "colour": 1}}, 422, "inputs[0].colour"),
        ({"a": {**tensor("a", "FP64", [1.0, 2.0]), "parameters": 1}}, 422, "inputs[0].parameters"),
        ({"a": {}}, 422, "inputs.a"),
        ({"d": tensor("d", "FP64", [1.0, 2.0])}, 422, "inputs[3].name"),
        ({"d": tensor("a", "FP64", [1.0, 2.0])}, 422, "inputs[3].name"),
    ],
)
def test_tensors_which_do_not_fit_are_refused(change: dict[str, Any], status: int, field: str) -> None:
    found, fields = refused(numbers(**change), contract=NUMBERS)
    assert (found, field in fields) == (status, True), fields


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"inputs": []}, 422),
        ({"inputs": {}}, 422),
        ({"inputs": [1]}, 422),
        ({"inputs": [tensor("a", "FP64", [1.0])] * 51}, 413),
        ({"inputs": [tensor(name, "FP64", [1.0] * 1001) for name in "abc"]}, 413),
        ({"outputs": [{"name": "other"}]}, 422),
        ({"outputs": [{"name": "prediction"}] * 2}, 422),
        ({"outputs": [1]}, 422),
        ({"outputs": [{"name": {}}]}, 422),
        ({"outputs": [{"name": ["prediction"]}]}, 422),
        ({"outputs": {}}, 422),
        ({"outputs": [{"name": "prediction", "parameters": {"classification": 3}}]}, 422),
        ({"outputs": [{"name": "prediction", "parameters": {"binary_data": 1}}]}, 422),
        ({"parameters": {"binary_data_output": "yes"}}, 422),
        ({"parameters": []}, 422),
        ({"parameters": {"event_time": "today"}}, 422),
        ({"id": 1}, 422),
        ({"id": "\ud800"}, 422),
        ({"colour": 1}, 422),
    ],
)
def test_requests_which_are_wrong_are_refused(change: dict[str, Any], status: int) -> None:
    assert refused(numbers() | change, contract=NUMBERS)[0] == status


def binary_of(size: int, shape: list[int], datatype: str = "FP64", **more: Any) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": "x", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}, **more}
        ]
    }


def test_binary_tensors_must_be_as_long_as_they_say() -> None:
    row = np.arange(3.0).tobytes()
    assert decode(binary_of(24, [1, 3]), row, NUMBERS).values == [(0.0, 1.0, 2.0)]
    for document, binary, status in (
        (binary_of(24, [1, 3]), row[:-1], 422),
        (binary_of(24, [1, 3]), row + b"\x00", 400),
        (binary_of(23, [1, 3]), row[:-1], 422),
        (binary_of(24, [2, 3]), row, 422),
        (binary_of(24, [2**60, 3]), row, 422),
        (binary_of(-1, [1, 3]), row, 422),
        (binary_of(True, [1, 3]), row, 422),
        (binary_of(24, [1, 3], data=[1.0]), row, 422),
        (binary_of(24, [1, 3]), np.array([1, np.inf, 1]).tobytes(), 422),
        (binary_of(24, [1, 3]), np.array([1, np.nan, 1]).tobytes(), 422),
    ):
        assert refused(document, binary, NUMBERS)[0] == status, document
    for given in ("-1", "x", "1e3", "٣", "", "9" * 30, "100000"):
        assert refused(binary_of(24, [1, 3]), row, NUMBERS, **{LENGTH: given})[0] == 400, given
    night = Contract((Column("x", "boolean"),))
    assert decode(binary_of(2, [2], "BOOL"), b"\x00\x01", night).values == [(False,), (True,)]
    assert refused(binary_of(2, [2], "BOOL"), b"\x00\x02", night)[0] == 422


def test_binary_texts_must_be_as_long_as_they_say() -> None:
    text, blob = Contract((Column("x", "string", required=False),)), Contract((Column("x", "binary"),))
    data = struct.pack("<I", 2) + "é".encode() + struct.pack("<I", 0)
    assert decode(binary_of(len(data), [2], "BYTES"), data, text).values == [("é",), ("",)]
    assert decode(binary_of(len(data), [2], "BYTES"), data, blob).values == [("é".encode(),), (b"",)]
    for wrong, count in (
        (data, 3),
        (data[:-1], 2),
        (struct.pack("<I", 2**32 - 1) + b"x", 1),
        (struct.pack("<I", 1) + b"\xff", 1),
        (struct.pack("<I", 1001) + b"x" * 1001, 1),
    ):
        assert refused(binary_of(len(wrong), [count], "BYTES"), wrong, text)[0] == 422
    anything = Contract((Column("x", "json", spec={"type": "any"}),))
    data = struct.pack("<I", 8) + b'{"a": 1}'
    assert decode(binary_of(len(data), [1], "BYTES"), data, anything).values == [({"a": 1},)]
    data = struct.pack("<I", 1) + b"{"
    assert refused(binary_of(len(data), [1], "BYTES"), data, anything)[0] == 422


def test_many_rows_are_held_as_columns() -> None:
    matrix = np.arange(2700.0).reshape(900, 3)
    batch = decode(binary_of(matrix.nbytes, [900, 3]), matrix.tobytes(), NUMBERS)
    assert isinstance(batch.values, pa.RecordBatch)
    assert np.column_stack([column.to_numpy() for column in batch.values.columns]).tolist() == matrix.tolist()


def answer(document: dict[str, Any], outputs: Any, output: str = "prediction") -> EncodedResponse:
    model = served(NUMBERS, output=output)
    decoded = open_inference.decode(model, InferenceRequest(json.dumps(numbers() | document).encode()), LIMITS)
    return decoded.encode(InferenceResult(outputs, model, "ours", "theirs"))


@pytest.mark.parametrize(
    ("outputs", "datatype", "shape", "data", "own", "whole"),
    [
        (np.array([0.5, 0.1]), "FP64", [2], [0.5, 0.1], "np", "np"),
        (np.array([[0.5, 0.25], [0, 1]], np.float32), "FP32", [2, 2], [0.5, 0.25, 0.0, 1.0], "np", "np"),
        (np.array([1, 2]), "INT64", [2], [1, 2], "np", "np"),
        ([1, 2], "INT64", [2], [1, 2], "np", "np"),
        ([True, False], "BOOL", [2], [True, False], "np", "np"),
        ([0.5, 1.5], "FP64", [2], [0.5, 1.5], "np", "np"),
        (["a", "é"], "BYTES", [2], ["a", "é"], "str", "str"),
        ([2**70, 1], "BYTES", [2], ["1180591620717411303424", "1"], "pd_json", "pd"),
        ([{"a": 1}, None], "BYTES", [2], ['{"a": 1}', "null"], "pd_json", "pd"),
        (["1", 1], "BYTES", [2], ['"1"', "1"], "pd_json", "pd"),
    ],
)
def test_outputs_are_one_tensor(
    outputs: Any, datatype: str, shape: list[int], data: list[Any], own: str, whole: str
) -> None:
    encoded = answer({"id": "7"}, outputs)
    parameters = {"content_type": own}
    assert json.loads(encoded.body) == {
        "model_name": "flights",
        "model_version": "3",
        "parameters": {"request_id": "ours", "client_request_id": "theirs", "content_type": whole},
        "id": "7",
        "outputs": [
            {"name": "prediction", "datatype": datatype, "shape": shape, "parameters": parameters, "data": data}
        ],
    }
    for wish in (
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "prediction", "parameters": {"binary_data": True}}]},
    ):
        encoded = answer(wish, outputs)
        assert encoded.media_type == "application/octet-stream"
        head = int(encoded.headers["Inference-Header-Content-Length"])
        result = InferResult.from_response_body(encoded.body, header_length=head)
        read = result.as_numpy("prediction")
        plain = [item.decode() if isinstance(item, bytes) else item for item in read.reshape(-1).tolist()]
        assert (list(read.shape), plain) == (shape, data)
    plain = {"outputs": [{"name": "prediction", "parameters": {"binary_data": False}}]}
    assert (
        "data" in json.loads(answer(plain | {"parameters": {"binary_data_output": True}}, outputs).body)["outputs"][0]
    )


_INSIDE = "NaN and infinities are null in the JSON texts of "


@pytest.mark.parametrize(
    ("outputs", "note"),
    [
        (np.array([0.5, np.nan]), "NaN and infinities are null in prediction; binary data has them"),
        ([{"a": np.nan}, {"a": 1.0}], f"{_INSIDE}prediction"),
        ([[1.0, np.inf], ["a"]], f"{_INSIDE}prediction"),
        (["a", np.nan], None),
        ([{"a": None}, {"a": 1.0}], None),
        (
            Answer("frame", ["x", "j"], [np.array([np.inf]), [{"a": [np.nan]}]], 1),
            f"NaN and infinities are null in x; binary data has them; {_INSIDE}j",
        ),
    ],
)
@pytest.mark.parametrize("binary", [False, True])
def test_a_note_says_where_null_replaces_nan(outputs: Any, note: str | None, binary: bool) -> None:
    encoded = answer({"parameters": {"binary_data_output": binary}}, outputs)
    head = int(encoded.headers.get("Inference-Header-Content-Length", len(encoded.body)))
    # Binary numbers have NaN; JSON texts never do.
    expected = note if note is None or not binary else note.rpartition("; ")[2] if "JSON" in note else None
    assert json.loads(encoded.body[:head])["parameters"].get("note") == expected


TIMES = np.array(["2013-07-01T12:00:00", "NaT"], "datetime64[ns]")


@pytest.mark.parametrize(
    ("outputs", "whole", "own"),
    [
        (
            Answer("frame", ["x", "t", "j", "n"], [np.array([1.5, 2.5]), ["a", None], [{"a": 1}, None], [1, 2]], 2),
            "pd",
            {"x": None, "t": "str", "j": "pd_json", "n": None},
        ),
        (Answer("frame", ["at", "gap"], [TIMES[[0, 0]], TIMES], 2), "pd", {"at": "datetime", "gap": "str"}),
        (Answer("series", [], [np.array([1.5, 2.5])], 2), "pd", {"prediction": None}),
        (Answer("mapping", ["a", "b"], [np.ones((2, 2)), ["x", "y"]], 2), "dict", {"a": "np", "b": "str"}),
        (Answer("targets", [], [np.ones((2, 2)), np.ones((2, 3))], 2), "dict", {"scores_0": "np", "scores_1": "np"}),
        (Answer("value", [], [np.ones((2, 2, 2))], 2), "np", {"prediction": "np"}),
        (Answer("value", [], [{"a": 1}], None), "pd", {"prediction": "pd_json"}),
    ],
)
def test_mlserver_s_clients_learn_how_to_decode(outputs: Answer, whole: str, own: dict[str, str | None]) -> None:
    for binary in (False, True):
        encoded = answer({"parameters": {"binary_data_output": binary}}, outputs)
        head = int(encoded.headers.get("Inference-Header-Content-Length", len(encoded.body)))
        document = json.loads(encoded.body[:head])
        assert document["parameters"]["content_type"] == whole
        assert {each["name"]: each.get("parameters", {}).get("content_type") for each in document["outputs"]} == own
        assert all(("binary_data_size" in each.get("parameters", {})) == binary for each in document["outputs"])
        assert all(("data" in each) != binary for each in document["outputs"])


@pytest.mark.parametrize("binary", [True, False])
def test_the_real_client_s_bodies_are_read(binary: bool) -> None:
    values: dict[str, np.ndarray[Any, Any]] = {
        "distance": np.array([1.5, -2.0]),
        "carrier": np.array(["UA", "é"], dtype=object),
        "seats": np.array([3, 2**62]),
        "small": np.array([1, -1], np.int32),
        "half": np.array([0.5, 1.5], np.float32),
        "night": np.array([True, False]),
        "built": np.array(["2013-07-01T12:00:00Z"] * 2, dtype=object),
    }
    datatypes = {
        "float64": "FP64",
        "object": "BYTES",
        "int64": "INT64",
        "int32": "INT32",
        "float32": "FP32",
        "bool": "BOOL",
    }
    inputs: list[InferInput] = []
    for name, array in values.items():
        given = InferInput(name, [2, 1], datatypes[array.dtype.name])
        given.set_data_from_numpy(array.reshape(2, 1), binary_data=binary)
        inputs.append(given)
    body, length = InferenceServerClient.generate_request_body(
        inputs, outputs=[InferRequestedOutput("prediction", binary_data=binary)], request_id="x"
    )
    headers = {} if length is None else {LENGTH: str(length)}
    moment = datetime(2013, 7, 1, 12, tzinfo=UTC)
    batch = open_inference.decode(served(MIXED), InferenceRequest(body, "", "", headers), LIMITS).batch
    assert batch.values == [
        (1.5, None, "UA", None, 3, 1, 0.5, True, moment, None),
        (-2.0, None, "é", None, 2**62, -1, 1.5, False, moment, None),
    ]


def test_the_names_of_model_and_version_in_a_body_are_checked() -> None:
    # KServe's client writes them.
    for names in ({"model_name": "flights"}, {"model_name": "flights", "model_version": "3"}, {"model_version": None}):
        assert decode(numbers() | names, contract=NUMBERS).rows == 2
    for names in ({"model_name": "other"}, {"model_version": "4"}, {"model_version": 3}, {"model_name": ["flights"]}):
        status, fields = refused(numbers() | names, contract=NUMBERS)
        assert (status, fields) == (422, list(names))


def test_null_members_are_absent() -> None:
    # Clients that dump their models without leaving out null.
    inputs = [{**each, "parameters": None} for each in numbers()["inputs"]]
    given = {"id": None, "parameters": None, "inputs": inputs, "outputs": None}
    assert decode(given, contract=NUMBERS).rows == 2
