"""Model versions in a cache folder, as the model server prepares and loads them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from tidemill.runtime.serving.engines.outputs import Answer
from tidemill.runtime.serving.inference.batch import Batch, Outputs
from tidemill.runtime.serving.settings import CompileSettings
from tidemill.runtime.serving.versions import preparation
from tidemill.runtime.serving.versions.model import ServedModel, VersionInfo, load

# Trees, and the class of numbers: what they are made of cannot run anything.
TRUSTED = [
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
]


def info_of(folder: Path) -> VersionInfo:
    return VersionInfo("m", folder.name, "champion", str(folder), "run", {})


def save_version(
    folder: Path, model: Any, frame: Any, *, method: str = "predict_proba", required: bool = True, **options: Any
) -> Path:
    """Save a fitted model of scikit-learn as the version in `folder`; return `folder`.

    Args:
        folder: of the version.
        model: fitted.
        frame: which it takes; the first rows are its input example.
        method: which answers.
        required: whether its columns may not be null.
        **options: of MLflow's `save_model`.
    """
    import mlflow.sklearn
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types import ColSpec, Schema

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = frame.dropna() if isinstance(frame, pd.DataFrame) else frame
        signature = infer_signature(whole, getattr(model, method)(whole))
        if not required:
            specs = [ColSpec(spec.type, spec.name, required=False) for spec in signature.inputs.inputs]
            signature = ModelSignature(Schema(specs), signature.outputs)
        chosen = {
            "serialization_format": "skops",
            "skops_trusted_types": TRUSTED,
            "signature": signature,
            "input_example": whole[:20],
            **options,
        }
        mlflow.sklearn.save_model(
            model, folder / "model", pyfunc_predict_fn=method, pip_requirements=["scikit-learn"], **chosen
        )
    return folder


def wanted(engines: Sequence[str] | None = None, tolerance: float = 1e-6) -> preparation.PreparationSettings:
    chosen = {} if engines is None else {"engines": list(engines)}
    return preparation.PreparationSettings(CompileSettings(tolerance=tolerance, **chosen))


def prepared(folder: Path, settings: preparation.PreparationSettings | None = None) -> ServedModel:
    """Prepare the version in `folder` in this process, and load it."""
    settings = settings or wanted()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        preparation.prepare(folder, settings)
        return load(info_of(folder), folder, settings)


@contextmanager
def served(folder: Path, settings: preparation.PreparationSettings | None = None) -> Iterator[ServedModel]:
    model = prepared(folder, settings)
    try:
        yield model
    finally:
        model.close()


def both_forms(model: ServedModel, rows: Sequence[tuple[Any, ...]]) -> list[Outputs]:
    """Return what `model` answers to `rows` as tuples, as a record batch, and one by one."""
    listed = list(rows)
    batch = Batch(len(listed), listed)
    packed = Batch(len(listed), model.contract.to_record_batch(batch))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        single = [rows_of(model.predict(Batch(1, [row])))[0] for row in listed[:3]]
        return [rows_of(model.predict(batch)), rows_of(model.predict(packed)), single]


def rows_of(outputs: Outputs) -> Any:
    """Return an array or a list with one value for each row."""
    return outputs.to_rows() if isinstance(outputs, Answer) else outputs
