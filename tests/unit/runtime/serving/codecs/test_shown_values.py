"""A 422 shows the invalid value, in every format of requests, and the default limits fit wide tables and images."""

from __future__ import annotations

import base64
import io
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tidemill.runtime.serving.contract.model_contract import Column, Contract
from tidemill.runtime.serving.http.content_negotiation import ARROW, CSV, JSON
from tidemill.runtime.serving.http.errors import Problem
from tidemill.runtime.serving.protocols import mlflow, open_inference, predict
from tidemill.runtime.serving.protocols.base import Decoder, InferenceRequest
from tidemill.runtime.serving.settings import LimitSettings

from tests.support.protocols import served

LIMITS = LimitSettings()
FIRST = datetime(1500, 1, 1, tzinfo=UTC)


def stream(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def message(decoder: Decoder, contract: Contract, body: Any, media_type: str = JSON) -> str:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Problem) as caught:
        decoder(served(contract), InferenceRequest(data, media_type), LIMITS)
    assert caught.value.status == 422
    return caught.value.errors[0].message


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("long", "12", 'got a string: "12"'),
        ("long", 1.5, "got a number: 1.5"),
        ("integer", 2**40, f"got an integer: {2**40}"),
        ("double", True, "got a boolean: true"),
        ("float", 1e300, "got a number: 1e+300"),
        ("double", 10**400, "got an integer: 1329 bits"),
        ("boolean", 1, "got an integer: 1"),
        ("string", ["a"], 'got a list: ["a"]'),
        ("binary", "é", 'got a string: "\\u00e9"'),
        ("datetime", "today", 'got a string: "today"'),
        ("double", None, "got null"),
    ],
)
def test_json_shows_the_value(kind: Any, value: Any, shown: str) -> None:
    contract = Contract((Column("a", kind), Column("b", "double")))
    row = {"a": value, "b": 1.0}
    bodies = (
        {"dataframe_records": [row]},
        {"instances": [row]},
        {"inputs": {"a": [value], "b": [1.0]}},
        {"dataframe_split": {"columns": ["a", "b"], "data": [[value, 1.0]]}},
    )
    for body in bodies:
        assert message(mlflow.decode, contract, body).endswith(shown), body
    assert message(predict.decode, contract, {"rows": [row]}).endswith(shown)


@pytest.mark.parametrize(
    ("kind", "cell", "shown"),
    [
        ("long", "12.5", "12.5"),
        ("double", "abc", 'got a string: "abc"'),
        ("integer", str(2**40), f"got an integer: {2**40}"),
        ("boolean", "maybe", 'got a string: "maybe"'),
        ("datetime", "today", 'got a string: "today"'),
    ],
)
def test_csv_shows_the_value(kind: Any, cell: str, shown: str) -> None:
    assert shown in message(mlflow.decode, Contract((Column("a", kind),)), f"a\n{cell}\n".encode(), CSV)


@pytest.mark.parametrize(
    ("column", "array", "shown"),
    [
        (Column("a", "integer"), pa.array([1, 2, 2**40, 2**41]), f"got an integer: {2**40}"),
        (Column("a", "long"), pa.array([1, 2**63 + 5], pa.uint64()), f"got an integer: {2**63 + 5}"),
        (Column("a", "float"), pa.array([1.0, -1e300]), "got a number: -1e+300"),
        (Column("a", "long"), pa.array(["12"]), 'got string, such as a string: "12"'),
        (Column("a", "datetime"), pa.array([FIRST], pa.timestamp("us", "UTC")), "1500-01-01T00:00:00"),
        (Column("a", "double"), pa.array([float("nan")]), "got NaN"),
        (Column("a", "tensor", dtype="float64", shape=(-1,)), pa.array([1.0, float("inf")]), "got a number: Infinity"),
        (Column("a", "tensor", dtype="int8", shape=(-1,)), pa.array([1, 2]), "got int64, such as an integer: 1"),
    ],
)
def test_arrow_shows_the_value(column: Column, array: pa.Array, shown: str) -> None:
    body = stream(pa.table({"a": array}))
    assert shown in message(mlflow.decode, Contract((column,)), body, ARROW)


@pytest.mark.parametrize(
    ("kind", "datatype", "data", "shown"),
    [
        ("integer", "INT64", [1, 2**40], f"got an integer: {2**40}"),
        ("float", "FP64", [1.0, 1e300], "got a number: 1e+300"),
        ("long", "FP64", [1.5, 1.0], "got FP64, such as a number: 1.5"),
        ("double", "BYTES", ["1", "2"], 'got a string: "1"'),
        ("double", "FP64", [1.0, "2"], 'got a string: "2"'),
        ("binary", "BYTES", ["é", "YQ=="], 'got a string: "\\u00e9"'),
        ("double", "FP64", [*[1.0] * 20, 1e400], "got a number: Infinity"),
    ],
)
def test_the_open_inference_protocol_shows_the_value(kind: Any, datatype: str, data: list[Any], shown: str) -> None:
    tensor = {"name": "a", "datatype": datatype, "shape": [len(data)], "data": data}
    body = json.dumps({"inputs": [tensor]}).replace("Infinity", "1e400").encode()
    assert message(open_inference.decode, Contract((Column("a", kind),)), body).endswith(shown)


def test_whole_numbers_of_a_matrix_are_shown() -> None:
    contract = Contract((Column("a", "long"), Column("b", "long")))
    tensor = {"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [1.0, 2.5]}
    assert message(open_inference.decode, contract, {"inputs": [tensor]}).endswith("got a number: 2.5")


def test_the_defaults_fit_2500_features() -> None:
    names = [f"feature_{at}" for at in range(2_500)]
    contract = Contract(tuple(Column(name, "double") for name in names))
    model, values = served(contract), np.random.default_rng(1).normal(size=(100, 2_500))
    split = {"dataframe_split": {"columns": names, "data": values.tolist()}}
    records = {"dataframe_records": [dict(zip(names, row, strict=True)) for row in values[:40].tolist()]}
    for body in (split, records):
        assert mlflow.decode(model, InferenceRequest(json.dumps(body).encode(), JSON), LIMITS).batch.rows >= 40
    csv = ",".join(names) + "\n" + ",".join(map(repr, values[0].tolist())) + "\n"
    assert mlflow.decode(model, InferenceRequest(csv.encode(), CSV), LIMITS).batch.rows == 1
    table = pa.table({name: values[:, at] for at, name in enumerate(names)})
    assert mlflow.decode(model, InferenceRequest(stream(table), ARROW), LIMITS).batch.rows == 100
    rows = {"rows": records["dataframe_records"]}
    assert predict.decode(model, InferenceRequest(json.dumps(rows).encode(), JSON), LIMITS).batch.rows == 40
    inputs = [
        {"name": name, "datatype": "FP64", "shape": [100], "data": column.tolist()}
        for name, column in zip(names, values.T, strict=True)
    ]
    body = json.dumps({"inputs": inputs}).encode()
    assert len(body) < LIMITS.body_bytes
    assert open_inference.decode(model, InferenceRequest(body), LIMITS).batch.rows == 100


def test_the_defaults_fit_images() -> None:
    jpeg = np.random.default_rng(1).bytes(150_000)
    text = base64.b64encode(jpeg).decode()
    contract = Contract((Column("image", "binary"),))
    body = json.dumps({"dataframe_records": [{"image": text}] * 4}).encode()
    batch = mlflow.decode(served(contract), InferenceRequest(body, JSON), LIMITS).batch
    assert contract.to_tuples(batch) == [(jpeg,)] * 4
    pixels = np.random.default_rng(1).random((2, 224, 224, 3))
    images = Contract((Column("image", "tensor", dtype="float64", shape=(-1, 224, 224, 3)),), named=False)
    for body, decode in (
        ({"instances": pixels.tolist()}, mlflow.decode),
        (
            {
                "inputs": [
                    {
                        "name": "image",
                        "datatype": "FP64",
                        "shape": list(pixels.shape),
                        "data": pixels.reshape(-1).tolist(),
                    }
                ]
            },
            open_inference.decode,
        ),
    ):
        data = json.dumps(body).encode()
        assert len(data) < LIMITS.body_bytes
        batch = decode(served(images), InferenceRequest(data, JSON), LIMITS).batch
        assert np.array_equal(images.to_pandas(batch), pixels)
