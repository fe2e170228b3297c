"""Cases from public reports by users of MLflow, MLServer, KServe, Seldon and BentoML, against the real server."""

from __future__ import annotations

import base64
import copy
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.models import ModelSignature, infer_signature
from mlflow.sklearn import save_model
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Map, Object, Property
from tidemill.runtime.capture import CAPTURE, list_segments, read_segment

from tests.compat.models import Models
from tests.compat.oracle import Oracle, quiet
from tests.compat.process import Commands, Served

pytestmark = pytest.mark.slow

_MODEL = """
import mlflow
from mlflow.sklearn import save_model
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel


class Model(PythonModel):
    def predict(self, context, model_input, params=None):
        {body}


mlflow.models.set_model(Model())
"""
_SHOW = (
    'cells = [[f"{c}:{model_input[c].dtype}:{v!r}" for v in model_input[c]] for c in model_input]',
    'return [" ".join(row) for row in zip(*cells)]',
)


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path / "commands")


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """Save a model whose `predict` has the given lines."""
    models = Models(tmp_path / "models")

    def save(*lines: str, **options: Any) -> Path:
        with quiet():
            return models.from_code(_MODEL.replace("{body}", "\n        ".join(lines)), **options)

    return save


def _inputs(*columns: ColSpec, params: Any = None) -> ModelSignature:
    return ModelSignature(inputs=Schema(list(columns)), params=params)


def _records(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"dataframe_records": list(rows)}


def _ask_together(server: Served, body: Any, count: int = 4) -> list[Any]:
    """Return the predictions for `count` equal requests that wait for the model at the same time."""
    answers: list[Any] = [None] * count

    def ask(number: int) -> None:
        answers[number] = server.invocations(body)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def _captured(folder: Path, rows: int) -> list[dict[str, Any]]:
    """Return the captured rows, when there are so many."""
    end = time.monotonic() + 60
    while True:
        found = [row for path in list_segments(folder, CAPTURE) for row in read_segment(path).to_pylist()]
        if len(found) >= rows:
            return found
        assert time.monotonic() < end, f"{len(found)} of {rows} rows were captured"
        time.sleep(0.2)


def test_requests_are_not_merged_if_rows_depend_on_each_other(commands: Commands, model: Any) -> None:
    lines = ["import time", "time.sleep(0.2)", 'return (model_input["x"] / model_input["x"].sum()).to_list()']
    with commands.serve(model(*lines, input_example=pd.DataFrame({"x": [4.0]}))) as server:
        assert _ask_together(server, _records({"x": 1.0}, {"x": 3.0})) == [[0.25, 0.75]] * 4


@pytest.mark.parametrize("has_example", [False, True], ids=["no example", "example of distinct groups"])
def test_requests_are_not_merged_if_rows_are_grouped(commands: Commands, model: Any, has_example: bool) -> None:
    example = pd.DataFrame({"g": ["u1", "u2"], "x": [4.0, 5.0]})
    lines = ["import time", "time.sleep(0.2)", 'return model_input.groupby("g")["x"].transform("sum").to_list()']
    signature = infer_signature(example, [1.0, 2.0])
    path = model(*lines, signature=signature, **({"input_example": example} if has_example else {}))
    with commands.serve(path) as server:
        body = _records({"g": "u1", "x": 1.0}, {"g": "u1", "x": 3.0})
        assert _ask_together(server, body) == [[4.0, 4.0]] * 4


def test_inference_parameters(commands: Commands, model: Any) -> None:
    signature = _inputs(ColSpec("double", "x"), params=ParamSchema([ParamSpec("scale", "double", 1.0)]))
    example = (pd.DataFrame({"x": [1.0, 2.0]}), {"scale": 1.0})
    path = model('return (model_input["x"] * params["scale"]).to_list()', signature=signature, input_example=example)
    data = {"dataframe_split": {"columns": ["x"], "data": [[1.0], [2.0]]}}
    tensor = {"name": "x", "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]}
    with commands.serve(path) as server:
        name = server.client.get("/readyz").json()["model"]
        assert server.invocations({**data, "params": {"scale": 10.0}}) == [10.0, 20.0]
        assert server.invocations(data) == [1.0, 2.0]
        request = {"inputs": [tensor], "parameters": {"scale": 10.0}}
        answer = server.post(f"/v2/models/{name}/infer", request)
        assert answer["outputs"][0]["data"] == [10.0, 20.0]
        for params in ({"unknown": 1}, {"scale": "ten"}):
            assert server.client.post("/invocations", json={**data, "params": params}).status_code == 422


def test_a_forecaster_answers_other_numbers_of_rows(commands: Commands, model: Any) -> None:
    example = pd.DataFrame({"start": [0], "end": [5]})
    lines = ["first = model_input.iloc[0]", 'return np.arange(float(first["start"]), float(first["end"]))']
    signature = _inputs(ColSpec("long", "start"), ColSpec("long", "end"))
    with commands.serve(model(*lines, signature=signature, input_example=example)) as server:
        assert server.invocations(_records({"start": 0, "end": 5})) == [0.0, 1.0, 2.0, 3.0, 4.0]
        assert server.invocations(_records(*[{"start": 0, "end": 1}] * 3)) == [0.0]


@pytest.mark.parametrize("classes", [(0, 1), ("dead", "alive")], ids=["numbers", "texts"])
def test_binary_probabilities_have_two_columns(commands: Commands, tmp_path: Path, classes: tuple[Any, Any]) -> None:
    from sklearn.linear_model import LogisticRegression

    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(80, 2)), columns=["a", "b"])
    fitted = LogisticRegression().fit(frame, np.where(frame["a"] > 0, classes[1], classes[0]))
    path = tmp_path / "proba"
    with quiet():
        save_model(
            fitted, path, serialization_format="skops", pyfunc_predict_fn="predict_proba", input_example=frame.head(3)
        )
    row = {"a": 2.0, "b": 0.1}
    theirs = Oracle(path).invocations(_records(row)).value
    with commands.serve(path) as server:
        assert server.invocations(_records(row)) == [pytest.approx(theirs[0], abs=1e-6)]
        answer = server.post("/predict", {"rows": [row]})["predictions"][0]
        assert answer == {"score": pytest.approx(fitted.predict_proba(pd.DataFrame([row]))[0, 1], abs=1e-6)}


@pytest.mark.parametrize("kind", ["long", "boolean", "binary"])
def test_object_columns_are_served_and_captured(commands: Commands, model: Any, tmp_path: Path, kind: str) -> None:
    given = {"long": {"n": 3, "s": "x"}, "boolean": {"n": True, "s": "x"}, "binary": {"b": "eHg="}}[kind]
    if kind == "binary":
        column: Any = Object([Property("b", DataType.binary)])
    else:
        column = Object([Property("n", DataType[kind]), Property("s", DataType.string)])
    path = model('return [len(v) for v in model_input["c"]]', signature=_inputs(ColSpec(column, "c")))
    folder = tmp_path / "captured"
    with commands.serve(path, "--capture", str(folder)) as server:
        for rows in (1, 2, 300):
            assert server.invocations(_records(*[{"c": given}] * rows)) == [len(given)] * rows
        captured = _captured(folder, 303)
    features = captured[0]["features"]["c"]
    assert (json.loads(features) if isinstance(features, str) else features) == given


def test_absent_and_null_values_reach_the_model_as_in_mlflow(commands: Commands, model: Any) -> None:
    kinds = {"n": "long", "i": "integer", "b": "boolean", "s": "string", "d": "double", "t": "datetime"}
    columns = [ColSpec(kind, name, required=False) for name, kind in kinds.items()]
    path = model(*_SHOW, signature=_inputs(*columns))
    full = {"n": 3, "i": 4, "b": True, "s": "x", "d": 1.5, "t": "2024-05-01T10:00:00"}
    oracle = Oracle(path)
    with commands.serve(path) as server:
        # MLflow refuses null beside a number in an optional integer, and makes False of null in a boolean.
        some_null = {**full, **dict.fromkeys(("s", "d", "t"))}
        for rows in ([full], [{"n": 3}], [full, some_null]):
            theirs = oracle.invocations(_records(*copy.deepcopy(rows)))
            assert theirs.ok
            assert server.invocations(_records(*rows)) == theirs.value
        (shown,) = server.invocations(_records(dict.fromkeys(full)))
        assert "b:object:None" in shown
        assert "n:Int64:<NA>" in shown


def test_arithmetic_with_optional_integers(commands: Commands, model: Any) -> None:
    path = model(
        'return [str(v) for v in np.where(np.isnan(model_input["n"].to_numpy(float, na_value=np.nan)), -1, 1)]',
        signature=_inputs(ColSpec("long", "n", required=False)),
    )
    with commands.serve(path) as server:
        assert server.invocations(_records({"n": 3}, {"n": None})) == ["1", "-1"]
        assert server.invocations(_records({"n": 3})) == ["1"]


def test_one_optional_column_of_each_type(commands: Commands, model: Any) -> None:
    kinds = ("long", "integer", "boolean", "string", "double", "float", "datetime", "binary")
    columns = [ColSpec(kind, kind, required=False) for kind in kinds]
    path = model(
        "return [list(model_input.columns)] * len(model_input)", signature=_inputs(ColSpec("double", "x"), *columns)
    )
    with commands.serve(path) as server:
        assert server.invocations(_records({"x": 1.0}, {"x": 2.0})) == [["x"]] * 2
        for kind in kinds:
            assert server.invocations(_records({"x": 1.0, kind: None})) == [["x", kind]]


def test_pandas_codec_of_the_open_inference_protocol(commands: Commands, model: Any) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0], "city": ["Köln", "Rio"], "n": [1, 2**53 + 1]})
    path = model(
        'cities = model_input["city"] + "!"',
        'return pd.DataFrame({"score": model_input["x"] * 2, "label": cities, "n": model_input["n"]})',
        input_example=frame,
    )

    def request(shape: list[int], **of_city: Any) -> dict[str, Any]:
        city = {"datatype": "BYTES", "data": ["Köln", "Rio"], "parameters": {"content_type": "str"}, **of_city}
        inputs = [
            {"name": "x", "datatype": "FP64", "data": [1.0, 2.0], "parameters": {"content_type": "np"}},
            {"name": "city", **city},
            {"name": "n", "datatype": "INT64", "data": [1, 2**53 + 1]},
        ]
        return {"parameters": {"content_type": "pd"}, "inputs": [{"shape": shape, **each} for each in inputs]}

    with commands.serve(path) as server:
        infer = f"/v2/models/{server.client.get('/readyz').json()['model']}/infer"
        for shape in ([2, 1], [2]):
            answer = server.post(infer, request(shape))
            found = {each["name"]: each["data"] for each in answer["outputs"]}
            assert found == {"score": [2.0, 4.0], "label": ["Köln!", "Rio!"], "n": [1, 2**53 + 1]}
        only = server.post(infer, {**request([2]), "outputs": [{"name": "score"}]})["outputs"]
        assert [(each["name"], each["data"]) for each in only] == [("score", [2.0, 4.0])]
        encoded = [base64.b64encode(text.encode()).decode() for text in ("Köln", "Rio")]
        answer = server.post(infer, request([2], data=encoded, parameters={"content_type": "base64"}))
        assert next(each["data"] for each in answer["outputs"] if each["name"] == "label") == ["Köln!", "Rio!"]
        assert server.invocations({"dataframe_split": frame.to_dict(orient="split")})[1]["n"] == 2**53 + 1


def test_a_folder_is_what_it_holds_now(commands: Commands, model: Any, tmp_path: Path) -> None:
    served, unfit = (
        model("return [1.0] * len(model_input)", signature=_inputs(ColSpec("double", "x"))),
        model("return 2.0"),
    )
    folder = tmp_path / "folder"
    served.rename(folder)
    with commands.serve(folder) as server:
        assert server.invocations(_records({"x": 1.0})) == [1.0]
    folder.rename(tmp_path / "before")
    unfit.rename(folder)
    code, output = commands.serve_in_vain(folder)
    assert code == 1
    assert "signature" in output


class TestScore:
    """Batch scoring gives what `predict` gives for the whole table, or refuses."""

    @pytest.fixture
    def score(self, commands: Commands, tmp_path: Path) -> Callable[..., tuple[int, Any]]:
        def score(path: Path, table: pa.Table, suffix: str = "parquet") -> tuple[int, Any]:
            source, out = tmp_path / "in.parquet", tmp_path / f"out.{suffix}"
            pq.write_table(table, source)
            code, output = commands.score(path, source, out)
            if code:
                return code, output
            return code, pq.read_table(out) if suffix == "parquet" else out.read_text()

        return score

    def test_rows_that_depend_on_each_other(self, score: Any, model: Any) -> None:
        path = model(
            'return (model_input["x"] / model_input["x"].sum()).to_list()', signature=_inputs(ColSpec("double", "x"))
        )
        code, scores = score(path, pa.table({"x": np.ones(100_000)}))
        assert code == 0
        assert set(scores["prediction"].to_pylist()) == {1e-05}

    def test_nan(self, score: Any, model: Any) -> None:
        path = model(
            'return np.where(model_input["x"] > 2, np.nan, model_input["x"])', signature=_inputs(ColSpec("double", "x"))
        )
        code, scores = score(path, pa.table({"x": [1.0, 3.0]}))
        assert code == 0
        first, second = scores["prediction"].to_pylist()
        assert first == 1.0
        assert np.isnan(second)

    def test_frames(self, score: Any, model: Any) -> None:
        path = model(
            'return pd.DataFrame({"s": model_input["x"] * 2, "l": ["a"] * len(model_input)})',
            signature=_inputs(ColSpec("double", "x")),
        )
        code, scores = score(path, pa.table({"x": [1.0, 3.0]}))
        assert code == 0
        assert [list(row.values()) for row in scores.select(scores.column_names[-2:]).to_pylist()] == [
            [2.0, "a"],
            [6.0, "a"],
        ]
        code, text = score(path, pa.table({"x": [1.0, 3.0]}), "csv")
        assert code == 0
        assert text.replace('"', "") == "s,l\n2,a\n6,a\n"

    def test_types_of_files(self, score: Any, model: Any) -> None:
        columns = [ColSpec("long", "n"), ColSpec("double", "d"), ColSpec("string", "s"), ColSpec("boolean", "b")]
        path = model(
            "rows = model_input.to_numpy(object)",
            "return [repr([v.item() if hasattr(v, 'item') else v for v in row]) for row in rows]",
            signature=_inputs(*columns),
        )
        base: dict[str, Any] = {"n": [1, 2], "d": [1.5, 2.5], "s": ["x", "y"], "b": [True, False]}
        expected = ["[1, 1.5, 'x', True]", "[2, 2.5, 'y', False]"]
        for change in (
            {},
            {"n": pa.array([1.0, 2.0])},
            {"s": pa.array(["x", "y"]).dictionary_encode()},
            {"s": pa.array(["x", "y"], pa.large_string())},
            {"d": pa.array(np.array([1.5, 2.5], dtype="float16"))},
            {"extra": pa.array([1, 2])},
        ):
            code, scores = score(path, pa.table({**base, **change}))
            assert (code, change) == (0, change), scores
            assert scores["prediction"].to_pylist() == expected, change
        for change in (
            {"s": pa.array([1, 2])},
            {"n": pa.array([1, 2**64 - 1], pa.uint64())},
            {"n": pa.array([1, None])},
        ):
            code, output = score(path, pa.table({**base, **change}))
            assert code != 0, change
            assert next(iter(change)) in output


def test_an_absent_column_leaves_the_default_of_the_model(commands: Commands, model: Any) -> None:
    lines = (
        'bonus = model_input["bonus"] if "bonus" in model_input.columns else 5.0',
        'return (model_input["x"] + bonus).tolist()',
    )
    path = model(*lines, signature=_inputs(ColSpec("double", "x"), ColSpec("double", "bonus", required=False)))
    with commands.serve(path) as server:
        assert server.invocations(_records({"x": 1.0})) == [6.0]
        assert server.invocations(_records({"x": 1.0, "bonus": 2.0})) == [3.0]


def test_captured_values_are_those_of_the_client(commands: Commands, model: Any, tmp_path: Path) -> None:
    path = model(
        'return [v.pop("a", "gone") for v in model_input["c"]]', signature=_inputs(ColSpec(Map("string"), "c"))
    )
    folder = tmp_path / "captured"
    with commands.serve(path, "--capture", str(folder)) as server:
        assert server.invocations(_records({"c": {"a": "x", "b": "y"}})) == ["x"]
        (row,) = _captured(folder, 1)
    assert json.loads(row["features"]["c"]) == {"a": "x", "b": "y"}
