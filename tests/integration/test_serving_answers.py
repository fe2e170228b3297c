"""Every kind of answer through the real server: swaps, shadow, capture and labels, and refusals in words."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from sklearn.tree import DecisionTreeClassifier
from tidemill.runtime.capture import join_labels, read_capture, read_labels

from tests.support.servers import Server
from tests.support.serving import ModelServer, Registry, model_server

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

BIG = 2**53 + 1
EXAMPLE = pd.DataFrame({"x": [1.0, 2.0, 3.0], "n": [1, 2, 3]})
SIGNATURE = ModelSignature(Schema([ColSpec("double", "x"), ColSpec("long", "n")]))
ROWS = [{"x": 1.5, "n": BIG}, {"x": -2.0, "n": 4}]
CODE = """
import mlflow, numpy as np, pandas as pd
from mlflow.pyfunc import PythonModel
class Model(PythonModel):
    def predict(self, context, model_input, params=None):
        x, n = model_input["x"], model_input["n"]
        {body}
mlflow.models.set_model(Model())
"""
FRAME = 'return pd.DataFrame({"twice": x * 2, "n": n, "text": [f"n{value}" for value in n]})'
FORECAST = 'return pd.Series([float(value) for value in range(5)] if x.iloc[0] > -100 else [1.0], name="day")'
SERIES = 'return pd.Series(n, name="same")'
MAPPING = 'return {"square": (x * x).to_numpy(), "sign": ["+" if value > 0 else "-" for value in x]}'
KEYS: dict[str, dict[str, Any]] = {"forecast": {"output": "day 1"}, "targets": {"row": 1, "output": "scores_1"}}
NOT_FINITE = "return np.where(x > 0, x, np.nan)"
SPARSE = """import scipy.sparse
        return scipy.sparse.csr_matrix([[1.0]]) if (x < 0).any() else x.to_numpy()"""
ODD = "return [1.0, 2.0, 3.0] if (x < 0).any() else x.to_numpy()"


def code(folder: Path, body: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model_code.py"
    file.write_text(CODE.replace("{body}", body))
    return str(file)


def targets() -> DecisionTreeClassifier:
    labels = np.array([[0, 0], [1, 1], [1, 2]])
    return DecisionTreeClassifier(random_state=0).fit(EXAMPLE, labels)


def save(folder: Path, body: str) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            folder / "model", python_model=code(folder, body), signature=SIGNATURE, input_example=EXAMPLE,
            pip_requirements=["scikit-learn"],
        )  # fmt: skip
    return folder / "model"


@contextmanager
def alone(folder: Path, body: str, **overrides: Any) -> Iterator[ModelServer]:
    settings = {"registry": None, "path": str(save(folder, body)), **overrides}
    server = ModelServer(folder, "", "", folder, settings)
    try:
        server.start()
        server.wait(lambda: bool({"version", "error"} & server.get("/readyz").json().keys()), 300)
        yield server
    finally:
        server.stop()


def oracle(path: str, rows: list[dict[str, Any]]) -> Any:
    """Return the predictions of MLflow's scoring server."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.pyfunc.scoring_server import invocations

        model = mlflow.pyfunc.load_model(path)
        schema = model.metadata.get_input_schema()
        answer = invocations(json.dumps({"dataframe_records": rows}), "application/json", model, schema)
    assert answer.status == 200, answer.response
    return json.loads(answer.response)["predictions"]


class Versions:
    """Registers a version of each kind of answer."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self._registry = registry
        self._folder = folder
        self.paths: dict[str, str] = {}

    def pyfunc(self, body: str) -> str:
        _ = self._registry.client
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mlflow.set_experiment(self._registry.model)
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=code(self._folder, body),
                signature=SIGNATURE,
                input_example=EXAMPLE,
                registered_model_name=self._registry.model,
                pip_requirements=["scikit-learn"],
            )
        return self._note(logged)

    def targets(self) -> str:
        _ = self._registry.client
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mlflow.set_experiment(self._registry.model)
            logged = mlflow.sklearn.log_model(
                targets(),
                name="model",
                signature=SIGNATURE,
                input_example=EXAMPLE,
                pyfunc_predict_fn="predict_proba",
                registered_model_name=self._registry.model,
                pip_requirements=["scikit-learn"],
                serialization_format="skops",
                skops_trusted_types=["sklearn.tree._tree.Tree", "numpy.dtype"],
            )
        return self._note(logged)

    def _note(self, logged: Any) -> str:
        version = str(logged.registered_model_version)
        self.paths[version] = logged.model_uri
        return version


def captured_rows(served: ModelServer, request_id: str, rows: int, role: str = "champion") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def written() -> bool:
        table = read_capture(served.capture)
        if table is None:
            return False
        joined = join_labels(table, read_labels(served.capture)).to_pylist()
        found[:] = [row for row in joined if row["request_id"] == request_id and row["role"] == role]
        return len(found) == rows

    served.wait(written)
    return found


def wait_for(served: ModelServer, version: str, shadow: str) -> None:
    def serves_both() -> bool:
        state = served.get("/readyz").json()
        return (state.get("version"), state.get("shadow")) == (version, shadow)

    # Each of them is prepared in a process of its own.
    served.wait(serves_both, 300)


@pytest.fixture(scope="module")
def registry(shared_mlflow: Server) -> Registry:
    return Registry(shared_mlflow, "flights-answers")


def test_swaps_shadow_capture_and_labels_of_every_kind_of_answer(registry: Registry, tmp_path: Path) -> None:
    versions = Versions(registry, tmp_path / "code")
    kinds = {
        "frame": versions.pyfunc(FRAME),
        "targets": versions.targets(),
        "forecast": versions.pyfunc(FORECAST),
        "series": versions.pyfunc(SERIES),
        "mapping": versions.pyfunc(MAPPING),
        "not finite": versions.pyfunc(NOT_FINITE),
    }
    expected = {kind: oracle(versions.paths[version], ROWS) for kind, version in kinds.items()}
    order = list(kinds)
    registry.alias(kinds["frame"])
    registry.client.set_registered_model_alias(registry.model, "challenger", kinds["mapping"])
    with model_server(tmp_path / "serving", registry, shadow="challenger") as served:
        answers: dict[str, dict[str, Any]] = {}
        for position, kind in enumerate(order):
            shadow = order[position - 1]
            registry.alias(kinds[kind])
            registry.client.set_registered_model_alias(registry.model, "challenger", kinds[shadow])
            wait_for(served, kinds[kind], kinds[shadow])
            with served.client() as client:
                answer = client.post("/invocations", json={"dataframe_records": ROWS})
                assert answer.status_code == 200, answer.text
                answers[kind] = answer.json()
                assert repr(answers[kind]["predictions"]) == repr(expected[kind]), kind
                named = client.post("/predict", json={"rows": ROWS}).json()
                assert ("answer" in named) == (kind == "forecast")
                request_id = answers[kind]["request_id"]
                label = {"request_id": request_id, "label": 7}
                sent = client.post("/labels", json={"labels": [{**label, **KEYS.get(kind, {"row": 1})}]})
                assert (sent.status_code, sent.json().get("accepted")) == (200, 1), sent.text
            rows = captured_rows(served, request_id, 2)
            other = captured_rows(served, request_id, 2, "shadow")
            assert {row["version"] for row in rows} == {kinds[kind]}
            assert {row["version"] for row in other} == {kinds[shadow]}
            for found, of in ((rows, kind), (other, shadow)):
                if of == "forecast":
                    assert [row["outputs"] for row in found] == [None, None]
                    assert json.loads(found[0]["answer"]) == expected[of]
                    assert found[1]["answer"] is None
                else:
                    assert all(row["outputs"] is not None and row["answer"] is None for row in found)
            joined = {row["row"]: row["label"] for row in rows}
            assert joined == {0: None, 1: None if kind in KEYS else 7.0}
        by_kind = {kind: captured_rows(served, answers[kind]["request_id"], 2) for kind in order}
        values = {kind: [(row["outputs"] or {}).get("prediction") for row in rows] for kind, rows in by_kind.items()}
        assert "Traceback" not in served.log
        dropped = [line for line in served.get("/metrics").text.splitlines() if "capture_dropped_rows_total" in line]
        assert all(line.endswith(" 0.0") for line in dropped if not line.startswith("#")), dropped
    # Of versions with different outputs, the table has JSON.
    assert json.loads(values["frame"][0]) == {"twice": 3.0, "n": BIG, "text": f"n{BIG}"}
    assert json.loads(values["series"][0]) == BIG
    labels = read_labels(served.capture).to_pylist()
    by_request = {answers["forecast"]["request_id"]: (None, "day 1"), answers["targets"]["request_id"]: (1, "scores_1")}
    for label in labels:
        if label["request_id"] in by_request:
            assert (label["row"], label["output"]) == by_request[label["request_id"]]


def test_nan_is_returned_in_every_protocol(tmp_path: Path) -> None:
    with alone(tmp_path, NOT_FINITE) as served, served.client() as client:
        body = {"dataframe_records": ROWS}
        assert '"predictions": [1.5, NaN]' in client.post("/invocations", json=body).text
        csv = client.post("/invocations", json=body, headers={"Accept": "text/csv"}).text
        assert pd.read_csv(pd.io.common.StringIO(csv))["prediction"].isna().tolist() == [False, True]
        stream = client.post("/invocations", json=body, headers={"Accept": "application/vnd.apache.arrow.stream"})
        with pa.ipc.open_stream(stream.content) as reader:
            assert math.isnan(reader.read_all()["prediction"][1].as_py())
        named = client.post("/predict", json={"rows": ROWS}).json()
        assert named["predictions"] == [{"prediction": 1.5}, {"prediction": None}]
        assert named["notes"] == ["row 1: not finite, returned as null"]
        tensors = [
            {"name": "x", "shape": [2], "datatype": "FP64", "data": [1.5, -2.0]},
            {"name": "n", "shape": [2], "datatype": "INT64", "data": [1, 2]},
        ]
        found = client.post("/v2/models/flights/infer", json={"inputs": tensors}).json()
        assert found["outputs"][0]["data"] == [1.5, None]
        assert "null in prediction" in found["parameters"]["note"]
    with alone(tmp_path / "refuse", NOT_FINITE, outputs={"non_finite": "refuse"}) as served, served.client() as client:
        refused = client.post("/invocations", json={"dataframe_records": ROWS})
        assert (refused.status_code, refused.json()["detail"]) == (422, "the model has no finite output for row 1")
        assert client.post("/invocations", json={"dataframe_records": ROWS[:1]}).status_code == 200


def test_an_answer_that_no_protocol_represents_is_refused_in_words(tmp_path: Path) -> None:
    sentence = "the model returned a scipy.sparse csr_matrix, which is not a table, an array or JSON; return .toarray()"
    with alone(tmp_path, SPARSE) as served, served.client() as client:
        answer = client.post("/invocations", json={"dataframe_records": ROWS})
        assert (answer.status_code, answer.json()["detail"]) == (500, sentence)
        assert client.post("/invocations", json={"dataframe_records": ROWS[:1]}).json()["predictions"] == [1.5]
    with (
        pytest.raises(AssertionError, match=re.escape(f"model cannot serve: {sentence}")),
        alone(tmp_path / "always", SPARSE.replace("if (x < 0).any()", "if True")) as served,
    ):
        served.wait(lambda: False, 60)


def test_one_odd_answer_of_a_version_that_answers_by_row(tmp_path: Path) -> None:
    with alone(tmp_path, ODD) as served, served.client() as client:
        usual = client.post("/invocations", json={"dataframe_records": ROWS[:1]}).json()
        odd = client.post("/invocations", json={"dataframe_records": ROWS})
        assert (odd.status_code, odd.json()["predictions"]) == (200, [1.0, 2.0, 3.0])
        request_id = odd.json()["request_id"]
        label = {"request_id": request_id, "label": 3}
        # Without the explicit null, it may be a forgotten row.
        assert client.post("/labels", json={"labels": [label]}).status_code == 422
        assert client.post("/labels", json={"labels": [{**label, "row": None}]}).status_code == 200
        rows = captured_rows(served, request_id, 2)
        assert ([row["outputs"] for row in rows], rows[0]["answer"]) == ([None, None], "[1.0, 2.0, 3.0]")
        [row] = captured_rows(served, usual["request_id"], 1)
        assert (row["outputs"], row["answer"]) == ({"prediction": 1.5}, None)
