"""Loading a version: its own code, never a pickle, and an answer before it may serve."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from tidemill.runtime.serving.contract import parse_json
from tidemill.runtime.serving.model import ServedModel, UnfitError, VersionInfo, load

FRAME = pd.DataFrame({"a": np.linspace(-1.0, 1.0, 40), "b": np.tile([0.5, 1.5], 20)})
BODY = parse_json(b'{"dataframe_records": [{"a": 0.25, "b": 1}, {"a": -2, "b": 0}]}')


def save(folder: Path, model: Any, *, predict: str = "predict_proba", **options: Any) -> Path:
    from mlflow.sklearn import save_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_model(
            model,
            folder,
            signature=infer_signature(FRAME, getattr(model, predict)(FRAME)),
            input_example=FRAME.head(2),
            pyfunc_predict_fn=predict,
            pip_requirements=["scikit-learn"],
            **{"serialization_format": "skops", **options},
        )
    return folder


def loaded(folder: Path, version: str = "1") -> ServedModel:
    info = VersionInfo("m", version, "champion", str(folder), "run", {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load(info, folder, code_root=folder.parent)


def answers(model: ServedModel) -> list[Any]:
    return model.predict(model.contract.batch(BODY, 10))


@pytest.mark.parametrize(("classes", "output"), [(2, "score"), (3, "scores")])
def test_classifiers_give_probabilities(tmp_path: Path, classes: int, output: str) -> None:
    fitted = LogisticRegression().fit(FRAME, np.arange(40) % classes)
    model = loaded(save(tmp_path / "1", fitted))
    probabilities = fitted.predict_proba(pd.DataFrame({"a": [0.25, -2.0], "b": [1.0, 0.0]}))
    assert model.output == output
    assert np.allclose(answers(model), probabilities[:, 1] if output == "score" else probabilities)


def test_other_models_give_predictions(tmp_path: Path) -> None:
    fitted = LinearRegression().fit(FRAME, FRAME["a"] * 2)
    model = loaded(save(tmp_path / "1", fitted, predict="predict"))
    assert model.output == "prediction"
    assert answers(model) == pytest.approx([0.5, -4.0])


def test_each_version_runs_the_code_it_came_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[ServedModel] = []
    path = list(sys.path)
    for factor in (1, 3):
        source = tmp_path / f"source{factor}"
        source.mkdir()
        (source / "own_features.py").write_text(f"def scale(frame):\n    return frame * {factor}\n")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(source)
            patch.delitem(sys.modules, "own_features", raising=False)
            scale = importlib.import_module("own_features").scale
            model = make_pipeline(FunctionTransformer(scale), LinearRegression())
            model.fit(FRAME, FRAME["a"])
            # Fitted alike, so that only the code differs.
            model[-1].coef_, model[-1].intercept_ = np.array([1.0, 0.0]), 0.0
            folder = save(
                tmp_path / "cache" / str(factor),
                model,
                predict="predict",
                code_paths=[str(source / "own_features.py")],
                skops_trusted_types=["own_features.scale"],
            )
            del sys.modules["own_features"]
        models.append(loaded(folder, str(factor)))
    try:
        assert [answers(model)[0] for model in models] == pytest.approx([0.25, 0.75])
    finally:
        sys.path[:] = path
        sys.modules.pop("own_features", None)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    fitted = LogisticRegression().fit(FRAME, np.arange(40) % 2)
    with pytest.raises(UnfitError, match="cloudpickle"):
        loaded(save(tmp_path / "1", fitted, serialization_format="cloudpickle"))
    folder = save(tmp_path / "2", fitted)
    described = yaml.safe_load((folder / "MLmodel").read_text())
    for change in (
        lambda flavors: flavors["sklearn"].pop("serialization_format"),
        lambda flavors: flavors["python_function"].update(loader_module="mlflow.pyfunc.model"),
        lambda flavors: flavors.pop("python_function"),
    ):
        changed = yaml.safe_load(yaml.safe_dump(described))
        change(changed["flavors"])
        (folder / "MLmodel").write_text(yaml.safe_dump(changed))
        with pytest.raises(UnfitError, match="pickle"):
            loaded(folder)


def test_a_model_which_answers_nonsense_does_not_serve(tmp_path: Path) -> None:
    fitted = LinearRegression().fit(FRAME, FRAME["a"])
    fitted.coef_ = np.array([np.nan, 0.0])
    with pytest.raises(UnfitError, match="not finite"):
        loaded(save(tmp_path / "1", fitted, predict="predict"))
