"""Models from code are prepared and loaded with every kind of input that MLflow serves."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.types import ColSpec, ParamSpec, TensorSpec
from mlflow.types.schema import DataType, Object, Property
from tidemill.runtime.serving.engines.outputs import Answer
from tidemill.runtime.serving.http.content_negotiation import JSON
from tidemill.runtime.serving.http.errors import Problem
from tidemill.runtime.serving.protocols import mlflow, open_inference, predict
from tidemill.runtime.serving.protocols.base import InferenceRequest

from tests.support.oracle import signature
from tests.support.protocols import LIMITS
from tests.support.versions import served

CODE = """
import mlflow, pandas as pd, pydantic
from mlflow.pyfunc import PythonModel

class Item(pydantic.BaseModel):
    a: int
    b: float | None = None
    t: list[str] = []

class M(PythonModel):
    def predict(self, {arguments}):
        return {answer}

mlflow.models.set_model(M())
"""


def save(folder: Path, answer: str, of: Any = None, arguments: str = "context, model_input, params=None") -> Path:
    code = folder / "code.py"
    folder.mkdir(parents=True, exist_ok=True)
    code.write_text(CODE.format(arguments=arguments, answer=answer))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import pyfunc

        pyfunc.save_model(folder / "model", python_model=code, signature=of, pip_requirements=[])
    return folder


def asked(model: Any, document: dict[str, Any], protocol: Any = mlflow) -> list[Any]:
    request = InferenceRequest(json.dumps(document).encode(), JSON)
    batch = protocol.decode(model, request, LIMITS).batch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs = model.predict(batch)
    return outputs.to_mlflow() if isinstance(outputs, Answer) else list(outputs)


def test_parameters_reach_the_model_on_every_protocol(tmp_path: Path) -> None:
    of = signature([ColSpec("double", "x")], [ParamSpec("scale", "double", 1.0)])
    folder = save(tmp_path / "1", '(model_input["x"] * params["scale"]).tolist()', of)
    row, tensor = {"x": 2.0}, {"name": "x", "shape": [1], "datatype": "FP64", "data": [2.0]}
    with served(folder) as model:
        for protocol, body, key in (
            (mlflow, {"dataframe_records": [row]}, "params"),
            (predict, {"rows": [row]}, "params"),
            (open_inference, {"inputs": [tensor]}, "parameters"),
        ):
            assert asked(model, body, protocol) == [2.0]
            assert asked(model, {**body, key: {"scale": 10}}, protocol) == [20.0]
            for params, field in (({"scale": "a"}, "scale"), ({"size": 1}, "size")):
                with pytest.raises(Problem) as caught:
                    asked(model, {**body, key: params}, protocol)
                assert [error.field for error in caught.value.errors] == [f"{key}.{field}"]
                assert "scale" in caught.value.errors[0].message
        own = {"content_type": "np", "headers": {}, "binary_data_output": False, "timeout": 5}
        assert asked(model, {"inputs": [tensor], "parameters": {**own, "scale": 3}}, open_inference) == [6.0]


@pytest.mark.parametrize("kind", ["long", "integer", "boolean", "float", "double", "string", "datetime", "binary"])
def test_optional_columns_of_every_kind(tmp_path: Path, kind: str) -> None:
    of = signature([ColSpec("double", "x"), ColSpec(kind, "o", required=False)])
    answer = '[bool(pd.isna(v)) for v in model_input["o"]] if "o" in model_input else ["absent"] * len(model_input)'
    with served(save(tmp_path / "1", answer, of)) as model:
        assert asked(model, {"dataframe_records": [{"x": 1.0}, {"x": 2.0}]}) == ["absent"] * 2
        assert asked(model, {"dataframe_records": [{"x": 1.0, "o": None}]}) == [True]
        assert asked(model, {"rows": [{"x": 1.0}]}, predict) == ["absent"]
        tensor = {"name": "x", "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]}
        assert asked(model, {"inputs": [tensor]}, open_inference) == ["absent"] * 2


@pytest.mark.parametrize(
    ("hint", "good", "answer", "bad"),
    [
        ("list[Item]", [{"a": 1}, {"a": 2, "b": 1.5}], [1, 2], [{"a": "x"}]),
        ("list[list[float]]", [[1.0, 2.5], [3.5]], [2, 1], [["x"]]),
        ("list[dict[str, float]]", [{"x": 1.0, "y": 2.0}, {}], [2, 0], [{"x": "y"}]),
        ("list[str]", ["a", "bcd"], [1, 3], [1]),
    ],
)
def test_models_with_type_hints(tmp_path: Path, hint: str, good: list[Any], answer: list[int], bad: list[Any]) -> None:
    code = "[v.a if isinstance(v, Item) else len(v) for v in model_input]"
    folder = save(tmp_path / "1", code, arguments=f"model_input: {hint}, params=None")
    with served(folder) as model:
        assert model.contract.hinted
        assert asked(model, {"inputs": good}) == answer
        assert asked(model, {"inputs": good * 150}) == answer * 150
        assert asked(model, {"instances": good}) == answer
        assert asked(model, {"rows": [{"0": value} for value in good]}, predict) == answer
        with pytest.raises(Problem) as caught:
            asked(model, {"inputs": bad})
        assert caught.value.status == 422
        assert caught.value.errors[0].field.startswith("inputs")


def test_columns_whose_names_are_integers(tmp_path: Path) -> None:
    of = signature([ColSpec("long", 2019), ColSpec("long", 2020)])  # type: ignore[arg-type]
    with served(save(tmp_path / "1", "(model_input[2019] - model_input[2020]).tolist()", of)) as model:
        assert asked(model, {"dataframe_split": {"columns": [2020, 2019], "data": [[1, 5]]}}) == [4]
        assert asked(model, {"dataframe_records": [{"2019": 5, "2020": 1}]}) == [4]


@pytest.mark.parametrize("rows", [1, 300])
def test_a_model_may_change_the_objects_it_gets(tmp_path: Path, rows: int) -> None:
    kind = Object([Property("n", DataType.long), Property("b", DataType.binary)])
    with served(
        save(tmp_path / "1", '[v.pop("n") for v in model_input["c"]]', signature([ColSpec(kind, "c")]))
    ) as model:
        body = json.dumps({"dataframe_records": [{"c": {"n": 3, "b": "eHg="}}] * rows}).encode()
        batch = mlflow.decode(model, InferenceRequest(body, JSON), LIMITS).batch
        assert [list(model.predict(batch)) for _ in range(2)] == [[3] * rows] * 2
        assert model.contract.to_arrow(batch).to_pylist() == [{"c": '{"n": 3, "b": "eHg="}'}] * rows


def test_a_fixed_number_of_rows(tmp_path: Path) -> None:
    of = signature([TensorSpec(np.dtype("float32"), (1, 2, 2))])
    with served(save(tmp_path / "1", "model_input.sum(axis=(1, 2)).tolist()", of)) as model:
        assert asked(model, {"inputs": [[[1, 2], [3, 4]]]}) == [10.0]
    of = signature([TensorSpec(np.dtype("float32"), (3,))])
    with served(save(tmp_path / "2", "(model_input * 2).tolist()", of)) as model:
        assert asked(model, {"inputs": [1, 2, 3]}) == [2.0, 4.0, 6.0]


def test_tensors_of_different_lengths_and_of_objects(tmp_path: Path) -> None:
    of = signature([TensorSpec(np.dtype("float64"), (-1, 2), "a"), TensorSpec(np.dtype("object"), (-1,), "b")])
    folder = save(tmp_path / "1", '[str([model_input["a"].shape, model_input["b"].tolist()])]', of)
    with served(folder) as model:
        document = {"inputs": {"a": [[1, 2]], "b": ["x", None, {"y": 1}]}}
        assert asked(model, document) == ["[(1, 2), ['x', None, {'y': 1}]]"]
