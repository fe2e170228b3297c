"""Sample models of each kind of signature, saved as their users save them, and requests for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.sklearn import save_model
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array, Map, Object, Property

from .models import DESCRIBE, Models


@dataclass(frozen=True)
class Sample:
    """A saved model and JSON requests that MLflow answers."""

    folder: Path
    requests: list[dict[str, Any]]


_TREE = "sklearn.tree._tree.Tree"
_BOOSTED = "sklearn.ensemble._hist_gradient_boosting.predictor"


def _random() -> np.random.Generator:
    return np.random.default_rng(7)


def _frame() -> pd.DataFrame:
    random = _random()
    return pd.DataFrame(
        {"a": random.normal(size=60), "b": random.integers(0, 9, 60), "c": random.choice(["x", "y"], 60)}
    )


def _split(frame: pd.DataFrame) -> dict[str, Any]:
    return {"dataframe_split": frame.head(3).to_dict(orient="split")}


def _records(frame: pd.DataFrame) -> dict[str, Any]:
    return {"dataframe_records": frame.head(3).to_dict(orient="records")}


def _sklearn(folder: Path, model: Any, method: str = "predict", **options: Any) -> Path:
    save_model(
        model,
        folder,
        serialization_format="skops",
        pyfunc_predict_fn=method,
        pip_requirements=["scikit-learn"],
        skops_trusted_types=[_TREE, f"{_BOOSTED}.TreePredictor"],
        **options,
    )
    return folder


def _pipeline(final: Any, target: Any) -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = make_column_transformer((StandardScaler(), ["a", "b"]), (OneHotEncoder(), ["c"]))
    return make_pipeline(columns, final).fit(_frame(), target)


def _classes(count: int) -> Any:
    return (_frame()["a"] * 2).round().abs().astype(int) % count


def _logistic(classes: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return _pipeline(LogisticRegression(), _classes(classes))


def sklearn_columns(folder: Path) -> Sample:
    from sklearn.linear_model import LinearRegression

    frame = _frame()
    model = _pipeline(LinearRegression(), frame["a"] * 2 + frame["b"])
    path = _sklearn(folder, model, signature=infer_signature(frame, model.predict(frame)), input_example=frame.head(3))
    return Sample(path, [_split(frame), _records(frame)])


def sklearn_optional(folder: Path) -> Sample:
    from sklearn.ensemble import HistGradientBoostingRegressor

    frame = _frame()[["a", "b"]].astype(float)
    frame.loc[::3, "b"] = np.nan
    model = HistGradientBoostingRegressor(max_iter=5).fit(frame, frame["a"])
    inputs = Schema([ColSpec("double", "a"), ColSpec("double", "b", required=False)])
    path = _sklearn(folder, model, signature=ModelSignature(inputs=inputs), input_example=frame.head(3))
    rows = [{"a": 0.5, "b": None}, {"a": 1.5, "b": 3.0}]
    return Sample(path, [{"dataframe_records": rows}, {"dataframe_records": rows[1:]}])


def _plain_regression() -> tuple[Any, Any]:
    from sklearn.linear_model import LinearRegression

    values = _random().normal(size=(60, 2))
    return LinearRegression().fit(values, values @ [1.5, -2.0]), values


def sklearn_unnamed(folder: Path) -> Sample:
    model, values = _plain_regression()
    inputs = Schema([ColSpec("double"), ColSpec("double")])
    path = _sklearn(folder, model, signature=ModelSignature(inputs=inputs))
    rows = values[:3].tolist()
    return Sample(path, [{"dataframe_split": {"data": rows}}, {"inputs": rows}, {"instances": rows}])


def sklearn_integer_names(folder: Path) -> Sample:
    model, values = _plain_regression()
    frame = pd.DataFrame(values, columns=[2019, 2020])
    path = _sklearn(folder, model, signature=infer_signature(frame), input_example=frame.head(3))
    return Sample(path, [_split(frame), {"dataframe_split": {"columns": [2019, 2020], "data": values[:2].tolist()}}])


def sklearn_tensor(folder: Path) -> Sample:
    model, values = _plain_regression()
    path = _sklearn(folder, model, signature=infer_signature(values), input_example=values[:3])
    return Sample(path, [{"inputs": values[:3].tolist()}, {"instances": values[:1].tolist()}])


def sklearn_none(folder: Path) -> Sample:
    model, values = _plain_regression()
    return Sample(_sklearn(folder, model), [{"dataframe_split": {"data": values[:3].tolist()}}])


def _proba(folder: Path, classes: int, method: str = "predict_proba", example: bool = True) -> Sample:
    frame, model = _frame(), _logistic(classes)
    options = {"input_example": frame.head(3)} if example else {}
    path = _sklearn(folder, model, method, signature=infer_signature(frame), **options)
    return Sample(path, [_records(frame), _split(frame)])


def sklearn_multi_output(folder: Path) -> Sample:
    from sklearn.ensemble import RandomForestClassifier

    frame: Any = _frame()[["a", "b"]]
    model = RandomForestClassifier(3, random_state=0).fit(frame, np.stack([_classes(2), _classes(3)], axis=1))
    path = _sklearn(folder, model, "predict_proba", signature=infer_signature(frame), input_example=frame.head(3))
    return Sample(path, [_records(frame), {"dataframe_records": frame.head(1).to_dict(orient="records")}])


def _describing(folder: Path, inputs: Schema | None, requests: list[dict[str, Any]], **options: Any) -> Sample:
    params: Any = options.pop("params", None)
    given = {} if inputs is None else {"signature": ModelSignature(inputs=inputs, params=params)}
    return Sample(Models(folder).from_code(DESCRIBE, **given, **options), requests)


def python_columns(folder: Path) -> Sample:
    kinds = ("boolean", "integer", "long", "float", "double", "string", "binary", "datetime")
    row = {
        "boolean": True,
        "integer": 3,
        "long": 2**53 + 1,
        "float": 0.1,
        "double": 0.1,
        "string": "Köln",
        "binary": "eHg=",
        "datetime": "2024-05-01T10:00:00",
    }
    inputs = Schema([ColSpec(kind, kind) for kind in kinds])
    split = {"columns": list(row), "data": [list(row.values())], "index": [5]}
    return _describing(folder, inputs, [{"dataframe_records": [row, row]}, {"dataframe_split": split}])


def python_optional(folder: Path) -> Sample:
    kinds = ("float", "double", "string", "datetime")
    inputs = Schema([ColSpec("long", "n"), *(ColSpec(kind, kind, required=False) for kind in kinds)])
    full = {"n": 1, "float": 0.5, "double": 0.5, "string": "x", "datetime": "2024-05-01T10:00:00"}
    empty: dict[str, Any] = {**dict.fromkeys(full), "n": 2}
    return _describing(folder, inputs, [{"dataframe_records": rows} for rows in ([full], [full, empty], [{"n": 3}])])


def python_unnamed(folder: Path) -> Sample:
    inputs = Schema([ColSpec("long"), ColSpec("string")])
    return _describing(folder, inputs, [{"dataframe_split": {"data": [[1, "x"], [2, "y"]]}}])


def python_integer_names(folder: Path) -> Sample:
    frame = pd.DataFrame([[1.5, 2.5], [3.5, 4.5]], columns=[2019, 2020])
    inputs = Schema([ColSpec("double", cast("Any", year)) for year in (2019, 2020)])
    return _describing(folder, inputs, [_split(frame)], input_example=frame)


def python_nested(folder: Path) -> Sample:
    inputs = Schema(
        [
            ColSpec(
                Object([Property("n", "long"), Property("ok", "boolean"), Property("s", "string", False)]), "object"
            ),
            ColSpec(Array("double"), "array"),
            ColSpec(Map("string"), "map"),
            ColSpec(Array(Object([Property("b", "binary")])), "nested"),
        ]
    )
    row = {"object": {"n": 3, "ok": True}, "array": [1.5, 2.5], "map": {"k": "v"}, "nested": [{"b": "eHg="}]}
    return _describing(folder, inputs, [{"dataframe_records": [row]}, {"dataframe_records": [row] * 300}])


def python_tensor(folder: Path) -> Sample:
    inputs = Schema([TensorSpec(np.dtype("float32"), (-1, 2))])
    values = [[0.5, 1.5], [2.5, 3.5]]
    split = {"dataframe_split": {"columns": [0, 1], "data": values}}
    return _describing(folder, inputs, [{"inputs": values}, {"instances": values}, split])


def python_tensors(folder: Path) -> Sample:
    inputs = Schema([TensorSpec(np.dtype("float64"), (-1, 2), "x"), TensorSpec(np.dtype("int64"), (-1,), "n")])
    equal = {"x": [[0.5, 1.5], [2.5, 3.5]], "n": [1, 2]}
    return _describing(folder, inputs, [{"inputs": equal}, {"inputs": {**equal, "n": [1, 2, 3]}}])


def python_params(folder: Path) -> Sample:
    params = ParamSchema([ParamSpec("scale", "double", 1.5), ParamSpec("words", "string", ["x"], shape=(-1,))])
    data = {"dataframe_records": [{"x": 1.0}]}
    given = [data, {**data, "params": {"scale": 10.0}}, {**data, "params": {"words": ["a", "b"]}}]
    return _describing(folder, Schema([ColSpec("double", "x")]), given, params=params)


def python_none(folder: Path) -> Sample:
    return _describing(folder, None, [{"dataframe_records": [{"x": 1.0}]}])


_HINTED = """
import mlflow
import pydantic
from mlflow.pyfunc import PythonModel


class Item(pydantic.BaseModel):
    name: str
    amount: float = 1.0
    tags: list[str] | None = None


class Model(PythonModel):
    def predict(self, model_input: {hint}) -> list[str]:
        return [repr(value) for value in model_input]


mlflow.models.set_model(Model())
"""


def _hinted(hint: str, values: list[Any]) -> Callable[[Path], Sample]:
    def build(folder: Path) -> Sample:
        path = Models(folder).from_code(_HINTED.replace("{hint}", hint), input_example=values)
        return Sample(path, [{"inputs": values}, {"inputs": values[:1]}])

    return build


def python_forecaster(folder: Path) -> Sample:
    source = """
import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel


class Model(PythonModel):
    def predict(self, context, model_input, params=None):
        first = model_input.iloc[0]
        return pd.DataFrame({"yhat": [float(value) for value in range(int(first["start"]), int(first["end"]))]})


mlflow.models.set_model(Model())
"""
    frame = pd.DataFrame({"start": [0], "end": [5]})
    path = Models(folder).from_code(source, signature=infer_signature(frame), input_example=frame)
    rows = [{"start": 0, "end": 5}, {"start": 1, "end": 2}]
    return Sample(path, [{"dataframe_records": rows[:1]}, {"dataframe_records": rows[::-1]}])


SAMPLES: dict[tuple[str, str], Callable[[Path], Sample]] = {
    ("scikit-learn", "columns"): sklearn_columns,
    ("scikit-learn", "optional columns"): sklearn_optional,
    ("scikit-learn", "unnamed columns"): sklearn_unnamed,
    ("scikit-learn", "integer names"): sklearn_integer_names,
    ("scikit-learn", "tensor"): sklearn_tensor,
    ("scikit-learn", "none"): sklearn_none,
    ("scikit-learn", "predict_proba, binary"): lambda folder: _proba(folder, 2),
    ("scikit-learn", "predict_proba, multi-class"): lambda folder: _proba(folder, 3),
    ("scikit-learn", "predict_proba, multi-output"): sklearn_multi_output,
    ("scikit-learn", "predict_log_proba, no example"): lambda folder: _proba(folder, 2, "predict_log_proba", False),
    ("PythonModel", "columns"): python_columns,
    ("PythonModel", "optional columns"): python_optional,
    ("PythonModel", "unnamed columns"): python_unnamed,
    ("PythonModel", "integer names"): python_integer_names,
    ("PythonModel", "object, array and map"): python_nested,
    ("PythonModel", "tensor"): python_tensor,
    ("PythonModel", "several tensors"): python_tensors,
    ("PythonModel", "parameters"): python_params,
    ("PythonModel", "none"): python_none,
    ("PythonModel", "type hint list[Item]"): _hinted("list[Item]", [{"name": "x", "amount": 2.5}, {"name": "y"}]),
    ("PythonModel", "type hint list[list[float]]"): _hinted("list[list[float]]", [[1.5, 2.5], [3.5]]),
    ("PythonModel", "type hint list[dict[str, float]]"): _hinted("list[dict[str, float]]", [{"a": 1.5}, {"b": 2.5}]),
    ("PythonModel", "type hint list[str]"): _hinted("list[str]", ["x", "Köln"]),
    ("PythonModel", "forecaster"): python_forecaster,
}
