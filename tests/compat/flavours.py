"""Models of each flavour as MLflow 2 and 3 save them, each trained, saved and asked in its own environment.

An environment is kept from run to run in the cache of the tests; its key is made from its requirements. The server
finds it there, as it finds those that it builds itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tidemill.runtime.serving.isolation import environment

from tests.support.foreign import cache_folder, describe_environment

OWN_MLFLOW = version("mlflow-skinny")
# The packages of a model of MLflow 2 other than its library. All have wheels for Python 3.10 to 3.13.
_MLFLOW_2 = ("mlflow-skinny==2.22.1", "numpy==2.1.3", "pandas==2.2.3", "pyarrow==19.0.1")
_MLFLOW_3 = (f"mlflow-skinny=={OWN_MLFLOW}", "numpy==2.3.5", "pandas==2.3.3", "pyarrow==23.0.1")
ROWS = {
    "columns": ["distance", "hour"],
    "data": [[100.0, 0.5], [1200.5, 12.25], [2500.0, 23.5], [640.25, 3.0], [1999.0, 18.75]],
}
BODIES: list[Any] = [
    {"dataframe_split": ROWS},
    {"dataframe_records": [dict(zip(ROWS["columns"], row, strict=True)) for row in ROWS["data"][:1]]},
]

_START = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mlflow, numpy as np, pandas as pd
from mlflow.models import infer_signature

folder, requirements, bodies = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
random = np.random.default_rng(7)
frame = pd.DataFrame({"distance": random.uniform(100, 2500, 200), "hour": random.uniform(0, 24, 200)})
late = ((frame["distance"] / 100 + frame["hour"]) > 24).astype(int)
options = {"pip_requirements": requirements, "input_example": frame.head(3)}
"""
_END = """
from mlflow.pyfunc import scoring_server
import mlflow.pyfunc

loaded = mlflow.pyfunc.load_model(folder)
schema = loaded.metadata.get_input_schema()
answers = [scoring_server.invocations(json.dumps(body), "application/json", loaded, schema) for body in bodies]
print(json.dumps([[answer.status, json.loads(answer.response)] for answer in answers]))
"""
_SCIKIT_LEARN = """
import mlflow.sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, late)
mlflow.sklearn.save_model(
    model, folder, signature=infer_signature(frame, model.predict_proba(frame)), pyfunc_predict_fn="predict_proba",
    serialization_format="FORMAT", **options,
)
"""
_XGBOOST = """
import mlflow.xgboost, xgboost

model = xgboost.train({"objective": "binary:logistic", "nthread": 1}, xgboost.DMatrix(frame, late), 5)
predicted = model.predict(xgboost.DMatrix(frame))
mlflow.xgboost.save_model(model, folder, signature=infer_signature(frame, predicted), **options)
"""
_XGBOOST_CLASSIFIER = """
import mlflow.xgboost, xgboost

model = xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(frame, late)
mlflow.xgboost.save_model(model, folder, signature=infer_signature(frame, model.predict(frame)), **options)
"""
_LIGHTGBM = """
import lightgbm, mlflow.lightgbm

model = lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, lightgbm.Dataset(frame, late), 5)
mlflow.lightgbm.save_model(model, folder, signature=infer_signature(frame, model.predict(frame)), **options)
"""
_LIGHTGBM_CLASSIFIER = """
import lightgbm, mlflow.lightgbm

model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1).fit(frame, late)
mlflow.lightgbm.save_model(model, folder, signature=infer_signature(frame, model.predict(frame)), **options)
"""
_CATBOOST = """
import catboost, mlflow.catboost

model = catboost.CatBoostClassifier(iterations=5, verbose=False, thread_count=1, allow_writing_files=False)
model.fit(frame, late)
mlflow.catboost.save_model(model, folder, signature=infer_signature(frame, model.predict(frame)), **options)
"""
_STATSMODELS = """
import mlflow.statsmodels
from statsmodels.regression.linear_model import OLS

model = OLS(late, frame).fit()
mlflow.statsmodels.save_model(model, folder, signature=infer_signature(frame, model.predict(frame)), **options)
"""
_ONNX = """
import mlflow.onnx
from onnx import TensorProto, helper, numpy_helper

def tensor(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [None])

def factor(name, value):
    return numpy_helper.from_array(np.array(value, dtype=np.float32), name)

nodes = [
    helper.make_node("Mul", ["distance", "a"], ["far"]),
    helper.make_node("Mul", ["hour", "b"], ["late"]),
    helper.make_node("Add", ["far", "late"], ["scores"]),
]
given, factors = [tensor("distance"), tensor("hour")], [factor("a", 0.001), factor("b", 0.05)]
graph = helper.make_graph(nodes, "linear", given, [tensor("scores")], factors)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
signature = infer_signature(frame, pd.DataFrame({"scores": [0.5]}))
mlflow.onnx.save_model(model, folder, signature=signature, **options)
"""
_PYTHON_MODEL = """
import mlflow.pyfunc

class Doubles(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        import pkg_resources  # part of setuptools

        return (model_input["distance"] * 2).tolist()

mlflow.pyfunc.save_model(folder, python_model=Doubles(), signature=infer_signature(frame, [0.5]), **options)
"""

# The server's own environment needs no setuptools.
_PLAIN_PYTHON_MODEL = _PYTHON_MODEL.replace("import pkg_resources  # part of setuptools", "import pandas")


@dataclass(frozen=True)
class Flavour:
    """A kind of model, saved by one version of MLflow.

    Attributes:
        name: of the flavour, with how the model is stored if that matters.
        mlflow: the version of MLflow that saves it.
        requirements: of the model; unpinned names mean that the environment of the server is its own.
        code: saves a model, fitted on `frame` and `late`, to `folder`.
        trust: whether the model is stored as a pickle.
    """

    name: str
    mlflow: str
    requirements: tuple[str, ...]
    code: str
    trust: bool = False

    @property
    def isolated(self) -> bool:
        """Whether it needs an environment other than the server's."""
        return any("==" in line for line in self.requirements)

    @cached_property
    def environment(self) -> Path:
        """The environment that trains the model and in which MLflow answers; it is built if it is not kept."""
        if not self.isolated:
            return Path(sys.prefix)
        described = cache_folder() / "flavours" / f"{self.name} {self.mlflow}".replace(" ", "-")
        return environment.ensure_environment(
            describe_environment(described, self.requirements), cache_folder(), seconds=600
        )

    def save(self, folder: Path, bodies: Sequence[Any] = BODIES) -> list[tuple[int, Any]]:
        """Train and save the model; return the status and document of MLflow's answer to each body."""
        code = f"{_START}{self.code}{_END}"
        argv = [str(self.environment / "bin" / "python"), "-c", code, str(folder)]
        argv += [json.dumps(self.requirements), json.dumps(bodies)]
        variables = environment.child_environment() | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true"}
        done = subprocess.run(
            argv, cwd=folder.parent, env=variables, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return [(status, document) for status, document in json.loads(done.stdout.splitlines()[-1])]


def _of_2(name: str, code: str, *requirements: str, **options: Any) -> Flavour:
    return Flavour(name, "2.22", (*_MLFLOW_2, *requirements), code, **options)


def _of_3(name: str, code: str, *requirements: str, **options: Any) -> Flavour:
    pinned = any("==" in line for line in requirements)
    short = ".".join(OWN_MLFLOW.split(".")[:2])
    return Flavour(name, short, (*(_MLFLOW_3 if pinned else ("numpy", "pandas")), *requirements), code, **options)


def _scikit(stored: str) -> str:
    return _SCIKIT_LEARN.replace("FORMAT", stored)


FLAVOURS = [
    _of_2("scikit-learn, pickle", _scikit("pickle"), "scikit-learn==1.6.1", trust=True),
    _of_2("scikit-learn, cloudpickle", _scikit("cloudpickle"), "scikit-learn==1.6.1", trust=True),
    _of_2("XGBoost, booster", _XGBOOST, "xgboost-cpu==3.0.5"),
    _of_2("XGBoost, XGBClassifier", _XGBOOST_CLASSIFIER, "xgboost-cpu==3.0.5", "scikit-learn==1.6.1"),
    _of_2("LightGBM, booster", _LIGHTGBM, "lightgbm==4.6.0"),
    _of_2("LightGBM, LGBMClassifier", _LIGHTGBM_CLASSIFIER, "lightgbm==4.6.0", "scikit-learn==1.6.1", trust=True),
    _of_2("CatBoost", _CATBOOST, "catboost==1.2.8"),
    _of_2("statsmodels", _STATSMODELS, "statsmodels==0.14.5", trust=True),
    # MLflow 2 needs scipy to infer a signature.
    _of_2("ONNX", _ONNX, "onnx==1.17.0", "onnxruntime==1.22.1", "scipy==1.15.3"),
    _of_2("PythonModel, pickle", _PYTHON_MODEL, "cloudpickle==3.1.1", "scipy==1.15.3", trust=True),
    _of_3("scikit-learn, skops", _scikit("skops"), "scikit-learn", "skops"),
    _of_3("scikit-learn, cloudpickle", _scikit("cloudpickle"), "scikit-learn", trust=True),
    _of_3("XGBoost, booster", _XGBOOST, "xgboost-cpu"),
    _of_3("XGBoost, XGBClassifier", _XGBOOST_CLASSIFIER, "xgboost-cpu", "scikit-learn"),
    _of_3("LightGBM, booster", _LIGHTGBM, "lightgbm"),
    _of_3("LightGBM, LGBMClassifier", _LIGHTGBM_CLASSIFIER, "lightgbm", "scikit-learn"),
    _of_3("CatBoost", _CATBOOST, "catboost==1.2.8"),
    _of_3("statsmodels", _STATSMODELS, "statsmodels==0.14.5", trust=True),
    _of_3("ONNX", _ONNX, "onnx", "onnxruntime"),
    _of_3("PythonModel, pickle", _PLAIN_PYTHON_MODEL, "cloudpickle", trust=True),
]
"""No row of PyTorch: the smallest wheel for Linux on PyPI has 527 MB, and requires the libraries of CUDA."""
