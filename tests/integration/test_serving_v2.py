"""Public clients against the real server: Triton's of the Open Inference Protocol, and what MLflow's own sends."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from mlflow.utils.proto_json_utils import dump_input_data
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from tests.support.alone import server_of
from tests.support.serving import MODEL, ModelServer, small_pipeline

pytestmark = pytest.mark.integration

PIPELINE, FRAME = small_pipeline(1)
ROWS = FRAME.head(7)
RIGHT: np.ndarray[Any, Any] = PIPELINE.predict_proba(ROWS)[:, 1]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with server_of(tmp_path_factory.mktemp("alone"), PIPELINE, FRAME) as one:
        yield one


@pytest.fixture
def triton(served: ModelServer) -> Iterator[tuple[InferenceServerClient, dict[str, str]]]:
    client = InferenceServerClient(served.url.removeprefix("http://"))
    yield client, {"Authorization": f"Bearer {served.key}"}
    client.close()


def inputs(*, binary: bool, columns: int = 3) -> list[InferInput]:
    given: list[InferInput] = []
    for name, datatype in (("distance", "FP64"), ("hour", "INT64"), ("carrier", "BYTES"))[:columns]:
        values = ROWS[name].to_numpy(dtype=object if datatype == "BYTES" else None).reshape(-1, 1)
        tensor = InferInput(name, list(values.shape), datatype)
        tensor.set_data_from_numpy(values, binary_data=binary)
        given.append(tensor)
    return given


def test_triton_s_client_learns_what_serves(triton: tuple[InferenceServerClient, dict[str, str]]) -> None:
    client, headers = triton
    assert client.is_server_live(headers=headers)
    assert client.is_server_ready(headers=headers)
    assert client.is_model_ready(MODEL, headers=headers)
    assert "binary_tensor_data" in client.get_server_metadata(headers=headers)["extensions"]
    metadata = client.get_model_metadata(MODEL, headers=headers)
    assert [(each["name"], each["datatype"]) for each in metadata["inputs"]] == [
        ("distance", "FP64"),
        ("hour", "INT64"),
        ("carrier", "BYTES"),
    ]
    version = metadata["versions"][0]
    assert client.get_model_metadata(MODEL, version, headers=headers) == metadata
    assert client.is_model_ready(MODEL, version, headers=headers)
    assert not client.is_model_ready("other", headers=headers)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("packed", [None, "gzip", "deflate"])
def test_triton_s_client_is_answered_in_every_way(
    triton: tuple[InferenceServerClient, dict[str, str]], binary: bool, packed: str | None
) -> None:
    client, headers = triton
    version = client.get_model_metadata(MODEL, headers=headers)["versions"][0]
    for outputs in (None, [InferRequestedOutput("score", binary_data=binary)]):
        result = client.infer(
            MODEL,
            inputs(binary=binary),
            model_version=version if binary else "",
            outputs=outputs,
            request_id="mine",
            headers=headers,
            request_compression_algorithm=packed,
        )
        assert result.as_numpy("score").tolist() == pytest.approx(RIGHT.tolist())
        answer = result.get_response()
        assert (answer["model_name"], answer["model_version"], answer["id"]) == (MODEL, version, "mine")
        assert answer["parameters"]["request_id"]


def test_triton_s_client_is_told_what_is_wrong(triton: tuple[InferenceServerClient, dict[str, str]]) -> None:
    client, headers = triton
    for name, given, sent, wanted in (
        (MODEL, inputs(binary=True, columns=2), headers, "inputs.carrier: missing"),
        (MODEL, inputs(binary=True), {}, "a valid API key is required"),
        ("other", inputs(binary=True), headers, f"this server serves {MODEL}"),
    ):
        with pytest.raises(InferenceServerException) as caught:
            client.infer(name, given, headers=sent)
        assert wanted in caught.value.message()


def test_what_mlflow_s_client_sends_is_taken(served: ModelServer) -> None:
    columns = {name: ROWS[name].tolist() for name in ROWS}
    bodies = [
        dump_input_data(ROWS),
        json.dumps({"inputs": columns}),
        json.dumps({"dataframe_records": ROWS.to_dict(orient="records")}),
        json.dumps({"instances": ROWS.to_dict(orient="records")}),
        json.dumps({"dataframe_split": ROWS[["carrier", "hour", "distance"]].to_dict(orient="split")}),
    ]
    with served.client() as client:
        answers = [
            client.post("/invocations", content=body, headers={"Content-Type": "application/json"}) for body in bodies
        ]
        answers.append(
            client.post("/invocations", content=ROWS.to_csv(index=False), headers={"Content-Type": "text/csv"})
        )
    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert [late for _, late in answer.json()["predictions"]] == pytest.approx(RIGHT.tolist())


def test_arrow_and_csv_go_in_and_out(served: ModelServer) -> None:
    arrow = "application/vnd.apache.arrow.stream"
    sink = io.BytesIO()
    many = pa.Table.from_pandas(pd.concat([ROWS] * 100), preserve_index=False)
    with pa.ipc.new_stream(sink, many.schema) as writer:
        writer.write_table(many)
    with served.client() as client:
        answer = client.post("/invocations", content=sink.getvalue(), headers={"Content-Type": arrow, "Accept": arrow})
        text = client.post(
            "/invocations",
            json={"dataframe_records": ROWS.to_dict(orient="records")},
            headers={"Accept": "text/csv"},
        )
        plain: httpx.Response = client.post("/invocations", content=b"", headers={"Accept": "text/html"})
    assert answer.headers["content-type"] == arrow
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table.column("score").to_pylist() == pytest.approx(RIGHT.tolist() * 100)
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert metadata["tidemill.request_id"] == answer.headers["x-request-id"]
    assert metadata["tidemill.version"] == answer.headers["x-tidemill-model-version"]
    assert pd.read_csv(io.StringIO(text.text))["score"].tolist() == pytest.approx(RIGHT.tolist())
    assert plain.status_code == 406


def test_predict_gives_its_outputs_names(served: ModelServer) -> None:
    with served.client() as client:
        answer = client.post("/predict", json={"rows": ROWS.to_dict(orient="records")}).json()
    assert [row["score"] for row in answer["predictions"]] == pytest.approx(RIGHT.tolist())
