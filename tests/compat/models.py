"""Models for the comparison: one that describes what it received, and ones that answer a given expression.

All are models from code, so no pickle is involved. MLflow saves each kind of model once; a signature is then written
into a copy, which takes milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mlflow.models import ModelSignature
from mlflow.types import Schema
from mlflow.types.schema import ParamSchema

from .oracle import mlflow, quiet

# Returns one text for each row, the first of which describes the input. So every server can return it.
DESCRIBE = '''
import json

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel


def described(value):
    """Return what `value` is, as a JSON value."""
    if isinstance(value, pd.DataFrame):
        columns = [[repr(name), str(value[name].dtype), cells(value[name])] for name in value.columns]
        return {"frame": columns, "index": [str(value.index.dtype), [repr(label) for label in value.index.tolist()]]}
    if isinstance(value, np.ndarray):
        return {"array": value.dtype.str, "shape": list(value.shape), "values": repr(value.tolist())}
    if isinstance(value, dict):
        return {"dict": [[repr(name), described(part)] for name, part in value.items()]}
    return {type(value).__name__: repr(value)}


def cells(column):
    return [repr(value) for value in column.tolist()]


class Model(PythonModel):
    def predict(self, context, model_input, params=None):
        text = json.dumps([described(model_input), None if params is None else repr(sorted(params.items()))])
        first = next(iter(model_input.values()), []) if isinstance(model_input, dict) else model_input
        rows = len(first) if np.ndim(first) else 1
        return [text] + [""] * (rows - 1)


mlflow.models.set_model(Model())
'''

_ANSWERS = """
import datetime
import decimal
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pydantic
import scipy.sparse
from mlflow.pyfunc import PythonModel


class Item(pydantic.BaseModel):
    a: int
    b: float | None = None


class Model(PythonModel):
    def predict(self, context, model_input, params=None):
        n = len(model_input)
        return {expression}


mlflow.models.set_model(Model())
"""


@dataclass(frozen=True)
class Signature:
    """The inputs of a model and its inference parameters; None if it has none."""

    inputs: Schema | None
    params: ParamSchema | None = None

    def __repr__(self) -> str:
        return f"Signature({self.inputs!r}, {self.params!r})"

    def to_mlflow(self) -> dict[str, Any]:
        """Return the entry of an `MLmodel` file."""
        params: Any = self.params
        return ModelSignature(inputs=self.inputs, params=params).to_dict()


class Models:
    """The folders of models, below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._count = 0

    def describing(self, signature: Signature) -> Path:
        """Return a model that describes what it receives."""
        return self.with_signature(self.from_code(DESCRIBE), signature)

    def answering(self, expression: str, signature: Signature) -> Path:
        """Return a model that answers the value of `expression`, in which `n` is the number of rows."""
        return self.with_signature(self.from_code(_ANSWERS.replace("{expression}", expression)), signature)

    def from_code(self, source: str, **options: Any) -> Path:
        """Return a model from the code `source`; without options, without a signature."""
        name = hashlib.sha256(json.dumps([source, sorted(options)]).encode()).hexdigest()[:12]
        folder = self._folder / f"code-{name}"
        if options or not folder.exists():
            code = self._folder / f"{name}.py"
            code.write_text(source, encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            with quiet():
                mlflow.pyfunc.save_model(folder, python_model=str(code), pip_requirements=[], **options)
        return folder

    def with_signature(self, model: Path, signature: Signature) -> Path:
        """Return a copy of `model` with another signature."""
        self._count += 1
        folder = self._folder / f"model-{self._count}"
        shutil.copytree(model, folder)
        document = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
        document["signature"] = signature.to_mlflow()
        (folder / "MLmodel").write_text(yaml.safe_dump(document), encoding="utf-8")
        return folder
