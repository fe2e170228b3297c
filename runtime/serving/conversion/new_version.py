"""Writes the folder of a converted model: what the old one had, with other files of the model itself."""

from __future__ import annotations

import shutil
import textwrap
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from ..contract.model_contract import Contract
from ..engines.mlmodel import METHOD, MLmodel
from ..isolation.requirements import ModelRequirements, distribution_name

_LOADER = ("mlflow", "mlflow-skinny")
_PICKLES = (".pkl", ".pickle", ".joblib", ".cloudpickle")


def write_skops_model(old: MLmodel, folder: Path, *, trusted_types: Sequence[str] = ()) -> None:
    """Write the folder of the skops model, except `model.skops` itself; keep that file if it exists.

    The requirements stay, except that of MLflow: versions before 3 do not read skops.
    """
    if not folder.exists():
        shutil.copytree(old.folder, folder, ignore=shutil.ignore_patterns("__pycache__"))
        _remove_pickles(old, folder)
    document: dict[str, Any] = yaml.safe_load((old.folder / "MLmodel").read_text(encoding="utf-8"))
    stored = {"serialization_format": "skops", "pickled_model": "model.skops"}
    document["flavors"]["sklearn"] |= {**stored, "skops_trusted_types": list(trusted_types)}
    document["flavors"]["python_function"] |= {"model_path": "model.skops"}
    document["mlflow_version"] = version("mlflow-skinny")
    write_mlmodel(folder, document)
    needs = ModelRequirements.of(old.folder)
    new = {"mlflow": f"mlflow=={version('mlflow-skinny')}", "skops": f"skops=={version('skops')}"}
    kept = [line for line in needs.lines if distribution_name(line) not in (*_LOADER, "skops")]
    constraints = [line for line in needs.constraints if distribution_name(line) not in (*_LOADER, "skops")]
    _write_requirements(folder, [*kept, *new.values()], constraints)


def write_onnx_model(old: MLmodel, folder: Path, file: Path, contract: Contract, outputs: Sequence[str]) -> None:
    """Write the folder of a model from code that calls the ONNX file, with the old one's signature and example."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import pyfunc

        code = folder.with_name("onnx_model.py")
        code.write_text(_ONNX_CODE.format(columns=list(contract.names), output=_output(old, outputs)), encoding="utf-8")
        packages = ("mlflow-skinny", "numpy", "pandas", "onnxruntime")
        pyfunc.save_model(
            folder,
            python_model=str(code),
            artifacts={"onnx": str(file)},
            pip_requirements=[f"{name}=={version(name)}" for name in packages],
        )
    code.unlink()
    document: dict[str, Any] = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
    before: dict[str, Any] = yaml.safe_load((old.folder / "MLmodel").read_text(encoding="utf-8"))
    document |= {key: before[key] for key in ("signature", "saved_input_example_info") if before.get(key)}
    document["metadata"] = {**(before.get("metadata") or {}), METHOD: old.method}
    for path in old.folder.glob("*input_example*"):
        shutil.copyfile(path, folder / path.name)
    write_mlmodel(folder, document)


def write_mlmodel(folder: Path, document: dict[str, Any]) -> None:
    """Write the `MLmodel` file."""
    (folder / "MLmodel").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def _output(old: MLmodel, outputs: Sequence[str]) -> str:
    # A classifier has two outputs: labels, then probabilities.
    return outputs[-1] if old.method == "predict_proba" else outputs[0]


def _remove_pickles(old: MLmodel, folder: Path) -> None:
    named = {str(old.function.get("model_path") or ""), str(old.flavor.get("pickled_model") or "")}
    for path in folder.iterdir():
        if path.is_file() and (path.name in named or path.suffix in _PICKLES):
            path.unlink()


def _write_requirements(folder: Path, lines: Sequence[str], constraints: Sequence[str]) -> None:
    """Write the requirements flat: they may have been in several files, or in `conda.yaml`."""
    pinned = ["-c constraints.txt"] if constraints else []
    (folder / "requirements.txt").write_text("\n".join([*pinned, *lines]) + "\n", encoding="utf-8")
    if constraints:
        (folder / "constraints.txt").write_text("\n".join(constraints) + "\n", encoding="utf-8")
    conda = folder / "conda.yaml"
    if conda.is_file():
        document: dict[str, Any] = yaml.safe_load(conda.read_text(encoding="utf-8")) or {}
        own = [item for item in document.get("dependencies") or [] if str(item).startswith(("python", "pip"))]
        document["dependencies"] = [*own, {"pip": list(lines)}]
        conda.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


_ONNX_CODE = textwrap.dedent('''\
    """Calls the ONNX model that `tidemill convert` made of a scikit-learn model."""

    import mlflow.models
    import mlflow.pyfunc
    import numpy as np


    class OnnxModel(mlflow.pyfunc.PythonModel):
        def load_context(self, context):
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self.session = onnxruntime.InferenceSession(
                context.artifacts["onnx"], options, providers=["CPUExecutionProvider"]
            )

        def predict(self, context, model_input, params=None):
            types = {{"tensor(float)": "float32", "tensor(double)": "float64", "tensor(int64)": "int64",
                     "tensor(bool)": "bool", "tensor(string)": "object"}}
            columns = {{str(name): name for name in {columns!r}}}
            values = {{
                given.name: np.asarray(model_input[columns[given.name]]).astype(types[given.type]).reshape(-1, 1)
                for given in self.session.get_inputs()
            }}
            answer = np.asarray(self.session.run([{output!r}], values)[0])
            return answer.ravel() if answer.ndim == 2 and answer.shape[1] == 1 else answer


    mlflow.models.set_model(OnnxModel())
    ''')
