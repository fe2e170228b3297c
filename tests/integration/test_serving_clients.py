"""The clients of MLflow, MLServer, Triton and KServe against the real server, as their documentation uses them."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from tests.support.alone import server_of
from tests.support.environments import environment_of, run_in
from tests.support.serving import MODEL, ModelServer, small_pipeline
from tests.support.tree import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

CLIENTS = ROOT / "tests" / "support" / "clients"
# Both need older packages than the server.
MLSERVER = ("mlserver==1.7.1", "pandas<3", "uvloop<0.22")
KSERVE = ("kserve==0.21.0",)

PIPELINE, FRAME = small_pipeline(1)
ROWS = FRAME.head(4)
RIGHT: list[float] = PIPELINE.predict_proba(ROWS)[:, 1].tolist()

FRAME_MODEL = """
import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel


class Everything(PythonModel):
    def predict(self, context, model_input, params=None):
        return pd.DataFrame(
            {
                "score": model_input["x"] * 2,
                "label": model_input["city"] + "!",
                "n": model_input["n"],
                "size": [len(blob) for blob in model_input["blob"]],
                "tags": [[*tags, "more"] for tags in model_input["tags"]],
                "next": model_input["at"] + pd.Timedelta(days=1),
            }
        )


mlflow.models.set_model(Everything())
"""
TEXT_MODEL = """
import mlflow
from mlflow.pyfunc import PythonModel


class Upper(PythonModel):
    def predict(self, context, model_input, params=None):
        if "nowhere" in list(model_input["text"]):
            raise LookupError("no city is called nowhere")
        return [text.upper() for text in model_input["text"]]


mlflow.models.set_model(Upper())
"""
EVERYTHING = pd.DataFrame(
    {
        "x": [1.0, 2.5],
        "city": ["K\u00f6ln", "Rio"],
        "n": [1, 2**53 + 1],
        "blob": [b"\x00\xff", b""],
        "tags": [["a", "b"], []],
        "at": pd.to_datetime(["2013-07-01T12:00:00", "2013-07-02T00:00:00"]),
    }
)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with server_of(tmp_path_factory.mktemp("classifier"), PIPELINE, FRAME) as one:
        yield one


def served_code(folder: Path, code: str, example: pd.DataFrame) -> ModelServer:
    """Start a server of a model from code, whose signature MLflow infers from `example`."""
    (folder / "model_code.py").write_text(code)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.pyfunc import save_model

        save_model(folder / "model", python_model=str(folder / "model_code.py"), input_example=example,
                   pip_requirements=["pandas"])  # fmt: skip
    server = ModelServer(folder, "", "", folder, {"registry": None, "path": str(folder / "model")})
    server.start()
    server.wait(lambda: server.get("/readyz").status_code == 200)
    return server


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    server = served_code(tmp_path_factory.mktemp("everything"), FRAME_MODEL, EVERYTHING)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    server = served_code(tmp_path_factory.mktemp("texts"), TEXT_MODEL, pd.DataFrame({"text": ["a", "b"]}))
    yield server
    server.stop()


def scoring_client(host: str, port: int) -> Any:
    with warnings.catch_warnings():
        # Of MLflow's own types.
        warnings.simplefilter("ignore")
        from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    return ScoringServerClient(host, port)


def path_of(server: ModelServer) -> str:
    return f"/v2/models/{server.model}/infer"


def test_mlflow_s_client_works_with_the_key_as_the_password_in_its_address(classifier: ModelServer) -> None:
    client = scoring_client(f"any:{classifier.key}@127.0.0.1", classifier.port)
    client.wait_server_ready(timeout=30)
    client.ping()
    assert client.get_version() == metadata.version("mlflow-skinny")
    for given in (ROWS, ROWS[["carrier", "hour", "distance"]]):
        answer = client.invoke(given)
        assert answer.get_predictions(predictions_format="ndarray").reshape(len(ROWS), -1)[:, -1].tolist() == (
            pytest.approx(RIGHT)
        )
        assert {"predictions", "model", "version", "request_id"} <= set(answer)
    with pytest.raises(Exception, match=r"error code 422.*hour.*got a string"):
        client.invoke(ROWS.assign(hour="x"))
    with pytest.raises(Exception, match=r"error code 401"):
        scoring_client("127.0.0.1", classifier.port).invoke(ROWS)
    with pytest.raises(Exception, match=r"error code 401"):
        scoring_client("any:wrong@127.0.0.1", classifier.port).invoke(ROWS)


def test_mlflow_s_client_works_with_the_key_in_netrc(
    classifier: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login any password {classifier.key}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    answer = scoring_client("127.0.0.1", classifier.port).invoke(ROWS)
    assert len(answer.get_predictions(predictions_format="ndarray")) == len(ROWS)


def test_the_paths_of_mlflow_s_scoring_server(classifier: ModelServer) -> None:
    for path in ("/ping", "/health"):
        answer = requests.get(classifier.url + path, timeout=30)
        assert (answer.status_code, answer.text) == (200, "\n"), "a health check needs no key"
        assert answer.headers["content-type"] == "application/json"
    assert requests.get(f"{classifier.url}/version", timeout=30).status_code == 401
    answer = classifier.get("/version")
    assert (answer.status_code, answer.text) == (200, metadata.version("mlflow-skinny"))
    refused = requests.post(f"{classifier.url}/invocations", data="{", timeout=30, auth=("any", classifier.key))
    document = refused.json()
    assert (refused.status_code, document["error_code"]) == (400, "BAD_REQUEST")
    assert document["message"] == document["error"] == document["detail"]


def test_a_failing_model_is_named_in_the_log_and_only_its_error_s_type_in_the_answer(texts: ModelServer) -> None:
    with texts.client() as client:
        answer = client.post("/invocations", json={"dataframe_records": [{"text": "nowhere"}]})
    document = answer.json()
    assert (answer.status_code, document["error_code"]) == (500, "INTERNAL_ERROR")
    assert document["detail"] == "the model failed on this request (LookupError)"
    lines = [line for line in texts.log.splitlines() if document["request_id"] in line and "a request failed" in line]
    assert len(lines) == 1
    assert "LookupError: no city is called nowhere" in lines[0]


def test_a_body_over_the_limit_is_told_the_limit_and_its_option(texts: ModelServer) -> None:
    body = b" " * 16_000_001
    with texts.client() as client:
        answer = client.post("/invocations", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["detail"] == (
        "the body has 16000001 bytes; the limit is 16000000; raise serve.limits.body_bytes in the stack config, or "
        "--max-body of tidemill serve"
    )


@pytest.fixture(scope="module")
def mlserver() -> Path:
    return environment_of("mlserver", MLSERVER, folder="clients")


def mlserver_calls(programs: Path, server: ModelServer, *calls: dict[str, Any]) -> list[dict[str, Any]]:
    given = {"url": server.url, "key": server.key, "calls": [{"path": path_of(server), **call} for call in calls]}
    return run_in(programs, CLIENTS / "mlserver_codecs.py", given)


@pytest.mark.parametrize("use_bytes", [True, False])
def test_mlserver_s_pandas_codec_asks_and_reads(mlserver: Path, everything: ModelServer, use_bytes: bool) -> None:
    call = {
        "codec": "pd",
        "use_bytes": use_bytes,
        "columns": {name: EVERYTHING[name].tolist() for name in ("x", "city", "n", "tags")},
        "base64": {"blob": [base64.b64encode(blob).decode() for blob in EVERYTHING["blob"]]},
        "datetime": {"at": ["2013-07-01T12:00:00", "2013-07-02T00:00:00"]},
    }
    [found] = mlserver_calls(mlserver, everything, call)
    assert found["content_type"] == "pd"
    frame = pd.DataFrame(found["whole"]["rows"])
    assert frame["score"].tolist() == [2.0, 5.0]
    assert frame["label"].tolist() == ["K\u00f6ln!", "Rio!"]
    assert frame["n"].tolist() == [1, 2**53 + 1]
    assert frame["size"].tolist() == [2, 0]
    assert frame["tags"].tolist() == [["a", "b", "more"], ["more"]]
    assert frame["next"].tolist() == ["2013-07-02T12:00:00", "2013-07-03T00:00:00"]
    assert found["whole"]["dtypes"] == {
        "score": "float64", "label": "object", "n": "int64", "size": "int64", "tags": "object", "next": "object",
    }  # fmt: skip
    assert found["outputs"]["label"] == ["K\u00f6ln!", "Rio!"]
    assert found["outputs"]["next"] == ["2013-07-02T12:00:00", "2013-07-03T00:00:00"]
    assert found["outputs"]["score"] is None, "as PandasCodec writes it"


def test_mlserver_s_codecs_ask_a_classifier(mlserver: Path, classifier: ModelServer) -> None:
    columns = {name: ROWS[name].tolist() for name in ROWS}
    calls: list[dict[str, Any]] = [
        {"codec": "pd", "use_bytes": False, "columns": columns},
        {"codec": "pd", "use_bytes": False, "columns": columns, "dtypes": {"carrier": "object"}},
        {"codec": "columns", "use_bytes": True, "columns": columns},
    ]
    for found in mlserver_calls(mlserver, classifier, *calls):
        assert found["content_type"] == "np"
        assert found["whole"]["dtype"] == "float64"
        assert found["whole"]["values"] == pytest.approx(RIGHT)
        assert found["outputs"]["score"] == found["whole"]


def test_mlserver_s_string_codec_asks_and_reads(mlserver: Path, texts: ModelServer) -> None:
    [found] = mlserver_calls(mlserver, texts, {"codec": "str", "use_bytes": True, "texts": ["k\u00f6ln", "rio"]})
    assert found["content_type"] == "str"
    assert found["whole"] == found["outputs"]["prediction"] == ["K\u00d6LN", "RIO"]


def test_mlserver_s_numpy_codec_asks_and_reads(mlserver: Path, tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(1)
    frame = pd.DataFrame(random.normal(size=(60, 3)), columns=list("abc"))
    model = LogisticRegression().fit(frame, (frame["a"] > 0).astype(int) + (frame["b"] > 0))
    matrix = frame.head(2).to_numpy()
    with server_of(tmp_path, model, frame) as server:
        [found] = mlserver_calls(mlserver, server, {"codec": "np", "array": matrix.tolist(), "dtype": "float64"})
    assert found["content_type"] == "np"
    assert found["whole"]["shape"] == [2, 3]
    assert np.array(found["whole"]["values"]) == pytest.approx(model.predict_proba(frame.head(2)))


@pytest.mark.parametrize("binary", [True, False])
def test_triton_s_client_reads_every_column(everything: ModelServer, binary: bool) -> None:
    inputs: list[InferInput] = []
    for name, datatype, values in (
        ("x", "FP64", EVERYTHING["x"].to_numpy()),
        ("n", "INT64", EVERYTHING["n"].to_numpy()),
        ("city", "BYTES", EVERYTHING["city"].to_numpy(dtype=object)),
        ("tags", "BYTES", np.array(['["a", "b"]', "[]"], dtype=object)),
        ("at", "BYTES", np.array(["2013-07-01T12:00:00Z", "2013-07-02T00:00:00Z"], dtype=object)),
        (
            "blob",
            "BYTES",
            np.array([b"\x00\xff", b""] if binary else ["AP8=", ""], dtype=object),
        ),
    ):
        tensor = InferInput(name, [2, 1], datatype)
        tensor.set_data_from_numpy(values.reshape(2, 1), binary_data=binary)
        inputs.append(tensor)
    headers = {"Authorization": f"Bearer {everything.key}"}
    client = InferenceServerClient(everything.url.removeprefix("http://"))
    try:
        names = [each["name"] for each in client.get_model_metadata(everything.model, headers=headers)["outputs"]]
        assert names == ["score", "label", "n", "size", "tags", "next"]
        for wanted in (None, ["score", "label"]):
            outputs = None if wanted is None else [InferRequestedOutput(name, binary_data=binary) for name in wanted]
            result = client.infer(everything.model, inputs, outputs=outputs, headers=headers)
            assert result.as_numpy("score").tolist() == [2.0, 5.0]
            labels = [each if isinstance(each, str) else each.decode() for each in result.as_numpy("label").tolist()]
            assert labels == ["K\u00f6ln!", "Rio!"]
            assert (result.as_numpy("size") is None) == (wanted is not None)
    finally:
        client.close()


def test_kserve_s_client_works(classifier: ModelServer) -> None:
    columns = {
        name: [datatype, ROWS[name].tolist()]
        for name, datatype in (("distance", "FP64"), ("hour", "INT64"), ("carrier", "BYTES"))
    }
    given = {"url": classifier.url, "key": classifier.key, "model": MODEL, "columns": columns}
    found = run_in(environment_of("kserve", KSERVE, folder="clients"), CLIENTS / "kserve_rest.py", given)
    assert (found["live"], found["ready"], found["model_ready"]) == (True, True, True)
    assert len(found["answers"]) == 5
    for identifier, model, output, values in found["answers"]:
        assert (identifier, model, output) == ("mine", MODEL, "score")
        assert values == pytest.approx(RIGHT)
    (unknown, no_key), (invalid, reason) = found["errors"]
    assert (unknown, invalid) == (401, 422)
    assert no_key.startswith("a valid API key is required")
    assert reason.startswith("inputs: expected a list of at least one tensor")
