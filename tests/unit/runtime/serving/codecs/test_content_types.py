"""What MLServer's codecs write in requests is read as they mean it; the signature decides the types."""

from __future__ import annotations

import base64
import json
import struct
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from tidemill.runtime.serving.codecs.content_types import CONTENT_TYPES
from tidemill.runtime.serving.contract.model_contract import Column, Contract
from tidemill.runtime.serving.http.errors import Problem
from tidemill.runtime.serving.inference.batch import Batch
from tidemill.runtime.serving.protocols import open_inference
from tidemill.runtime.serving.protocols.base import InferenceRequest

from tests.support.protocols import LIMITS, MIXED, NUMBERS, served

COLUMNS = Contract(
    (
        Column("text", "string", required=False),
        Column("blob", "binary", required=False),
        Column("at", "datetime", required=False),
        Column("any", "json", required=False, spec={"type": "any"}),
        Column("list", "json", required=False, spec={"type": "array", "items": {"type": "long"}}),
        Column("x", "double", required=False),
        Column("n", "long", required=False),
    )
)
ONE_TEXT = Contract((Column("text", "string"),))
MOMENT = datetime(2013, 7, 1, 12, tzinfo=UTC)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def tensor(name: str, datatype: str, data: list[Any], content_type: Any = None, **more: Any) -> dict[str, Any]:
    made = {"name": name, "datatype": datatype, "shape": [len(data), 1], "data": data, **more}
    return made if content_type is None else {**made, "parameters": {"content_type": content_type}}


def request(*inputs: dict[str, Any], content_type: Any = None) -> dict[str, Any]:
    document: dict[str, Any] = {"inputs": list(inputs)}
    return document if content_type is None else {**document, "parameters": {"content_type": content_type}}


def decode(document: dict[str, Any], contract: Contract = COLUMNS, binary: bytes = b"") -> Batch:
    body = json.dumps(document).encode()
    headers = {"inference-header-content-length": str(len(body))} if binary else {}
    return open_inference.decode(served(contract), InferenceRequest(body + binary, "", "", headers), LIMITS).batch


def value_of(name: str, datatype: str, value: Any, content_type: str | None, *, request_level: bool = False) -> Any:
    """Return the value that the model gets for one value of the column `name`."""
    own, default = (None, content_type) if request_level else (content_type, None)
    [row] = COLUMNS.to_tuples(decode(request(tensor(name, datatype, [value], own), content_type=default)))
    return row[COLUMNS.positions[name]]


def refusal(document: dict[str, Any], contract: Contract = COLUMNS) -> tuple[str, str]:
    with pytest.raises(Problem) as caught:
        decode(document, contract)
    assert caught.value.status == 422
    [error] = caught.value.errors
    return error.field, error.message


@pytest.mark.parametrize(
    ("name", "value", "content_type", "wanted"),
    [
        ("text", encoded("Köln"), "base64", "Köln"),
        ("text", "", "base64", ""),
        ("text", None, "base64", None),
        ("text", encoded("x"), None, encoded("x")),
        ("text", encoded("x"), "str", encoded("x")),
        ("text", "Köln", "np", "Köln"),
        ("text", "2013-07-01", "datetime", "2013-07-01"),
        ("text", '"Köln"', "pd_json", "Köln"),
        ("text", "null", "pd_json", None),
        ("text", '"null"', "pd_json", "null"),
        ("text", "null", "str", "null"),
        ("blob", encoded("\x00é"), "base64", "\x00é".encode()),
        ("blob", encoded("\x00é"), None, "\x00é".encode()),
        ("blob", encoded(encoded("x")), "base64", encoded("x").encode()),
        ("at", "2013-07-01T12:00:00", "datetime", MOMENT),
        ("at", "2013-07-01T14:00:00+02:00", "datetime", MOMENT),
        ("at", "2013-07-01T12:00:00.000250", "datetime", MOMENT.replace(microsecond=250)),
        ("at", "2013-07-01", "datetime", MOMENT.replace(hour=0)),
        ("at", "2013-07-01T12:00:00Z", "str", MOMENT),
        ("at", encoded("2013-07-01T12:00:00Z"), "base64", MOMENT),
        ("any", '{"a":[1,null]}', "pd_json", {"a": [1, None]}),
        ("any", '"{}"', "pd_json", "{}"),
        ("any", "null", "pd_json", None),
        ("any", "{}", "str", "{}"),
        ("any", "{}", None, {}),
        ("any", encoded("[1]"), "base64", [1]),
        ("list", "[1,2]", "pd_json", [1, 2]),
        ("list", "[1,2]", "str", [1, 2]),
        ("x", "1.5", "pd_json", 1.5),
        ("x", "null", "pd_json", None),
        ("n", "3", "pd_json", 3),
    ],
)
def test_a_content_type_says_how_a_value_is_encoded(name: str, value: Any, content_type: str, wanted: Any) -> None:
    for request_level in (False, True):
        assert value_of(name, "BYTES", value, content_type, request_level=request_level) == wanted


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_the_signature_decides_where_the_values_fit(content_type: str) -> None:
    for request_level in (False, True):
        assert value_of("x", "FP64", 1.5, content_type, request_level=request_level) == 1.5
        assert value_of("n", "INT32", 3, content_type, request_level=request_level) == 3


def test_an_input_s_own_content_type_counts() -> None:
    document = request(
        tensor("text", "BYTES", [encoded("a"), "Umlv"], "str"),
        tensor("blob", "BYTES", [encoded("a"), encoded("b")]),
        tensor("list", "BYTES", ["[1]", "null"], "pd_json"),
        tensor("x", "FP64", [1.0, None]),
        content_type="base64",
    )
    assert decode(document).values == [
        (encoded("a"), b"a", None, None, [1], 1.0, None),
        ("Umlv", b"b", None, None, None, None, None),
    ]


@pytest.mark.parametrize(
    ("document", "field", "message"),
    [
        (
            request(tensor("text", "BYTES", ["YQ==", "Köln"], "base64")),
            "inputs[0].data[1]",
            'is not base64, as the content type base64 says; got a string: "K\\u00f6ln"',
        ),
        (
            request(tensor("text", "BYTES", [encoded("a")[:-1]], "base64")),
            "inputs[0].data[0]",
            'is not base64, as the content type base64 says; got a string: "YQ="',
        ),
        (
            request(tensor("text", "BYTES", [base64.b64encode(b"\xff").decode()], "base64")),
            "inputs[0]",
            "text is not UTF-8, got bytes: b'\\xff'",
        ),
        (
            request(tensor("x", "BYTES", ['"1.5"'], "pd_json")),
            "inputs[0]",
            'x must be a number (double) or null, got a string: "1.5"',
        ),
        (
            request(tensor("x", "BYTES", ["1.5"], "str")),
            "inputs[0]",
            'x must be a number (double) or null, got a string: "1.5"',
        ),
        (
            request(tensor("text", "FP64", [1.5], "str")),
            "inputs[0]",
            "text must be BYTES, got FP64, such as a number: 1.5",
        ),
    ],
)
def test_values_which_are_not_encoded_so_are_refused(document: dict[str, Any], field: str, message: str) -> None:
    assert refusal(document) == (field, message)


def test_text_which_is_not_json_is_refused_with_the_reason() -> None:
    for text, reason in (
        ("{x", "Expecting property name enclosed in double quotes"),
        ("NaN", "NaN is not JSON"),
        ("[" * 17 + "]" * 17, "nested more than 16 levels deep"),
        ('{"a": 1, "a": 2}', "twice"),
    ):
        field, message = refusal(request(tensor("any", "BYTES", ["1", text], "pd_json")))
        assert field == "inputs[0].data[1]"
        assert message.startswith("is not JSON (")
        assert reason in message
        assert "as the content type pd_json says; got a string: " in message


@pytest.mark.parametrize("given", ["utf8", "PD", "\ud800", "x" * 1000, 1, ["np"], True])
def test_an_unknown_content_type_is_refused_by_its_name(given: Any) -> None:
    for document, field in (
        (request(tensor("x", "FP64", [1.0], given)), "inputs[0].parameters.content_type"),
        (request(tensor("x", "FP64", [1.0]), content_type=given), "parameters.content_type"),
    ):
        found, message = refusal(document)
        assert found == field
        assert message.endswith("expected one of base64, datetime, dict, np, pd, pd_json, str")
        assert len(message) < 400
        if given == "utf8":
            assert message.startswith("unknown content type utf8;")
    assert decode(request(tensor("x", "FP64", [1.0], ""), content_type="")).rows == 1


def test_binary_tensors_have_content_types_too() -> None:
    values = [encoded("Köln").encode(), b"Umlv"]
    data = b"".join(struct.pack("<I", len(value)) + value for value in values)
    parameters = {"binary_data_size": len(data), "content_type": "base64"}
    for name, wanted in (("text", ["Köln", "Rio"]), ("blob", ["Köln".encode(), b"Rio"])):
        document = request({"name": name, "datatype": "BYTES", "shape": [2, 1], "parameters": parameters})
        assert [row[COLUMNS.positions[name]] for row in COLUMNS.to_tuples(decode(document, COLUMNS, data))] == wanted


def test_one_array_may_have_any_name() -> None:
    # StringRequestCodec and NumpyRequestCodec call it input-1.
    document = request(tensor("input-1", "BYTES", ["a", "b"], "str"), content_type="str")
    assert decode(document, ONE_TEXT).values == [("a",), ("b",)]
    document = request(tensor("input-1", "FP64", [1.0, 2.0, 3.0], "np", shape=[1, 3]), content_type="np")
    assert decode(document, NUMBERS).values == [(1.0, 2.0, 3.0)]
    for named in (True, False):
        flat = Contract((Column("x", "tensor", dtype="float64", shape=(-1,)),), named)
        document = request(tensor("input-1", "FP64", [1.0, 2.0], "np"), content_type="np")
        array = flat.to_pandas(decode(document, flat))
        assert (array["x"] if named else array).tolist() == [1.0, 2.0]
        matrix = Contract((Column("x", "tensor", dtype="float32", shape=(-1, 2)),), named)
        document = request(tensor("input-1", "FP32", [1.0, 2.0], "np", shape=[1, 2]), content_type="np")
        array = matrix.to_pandas(decode(document, matrix))
        assert (array["x"] if named else array).tolist() == [[1.0, 2.0]]
    field, _ = refusal(request(tensor("input-1", "BYTES", ["a", "b"], "str", shape=[1, 2])), ONE_TEXT)
    assert field == "inputs[0].name"
    with pytest.raises(Problem):
        decode(request(tensor("input-1", "BYTES", ["a"])), MIXED)


def test_texts_of_tensors_are_decoded() -> None:
    contract = Contract((Column("t", "tensor", dtype="str", shape=(-1,)),))
    document = request(tensor("t", "BYTES", [encoded("é"), encoded("b")], "base64"))
    arrays = contract.to_pandas(decode(document, contract))
    assert arrays["t"].tolist() == ["é", "b"]
    assert arrays["t"].dtype == np.array(["é"]).dtype
