"""The models which are served, their rows, and what they say of these themselves."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROWS = 512
"""Different rows which are sent in turn."""

_FIT = 12_000


@dataclass(frozen=True)
class Model:
    """A fitted model, in the forms in which servers load it.

    Attributes:
        name: `trees`, `mixed`, `forest`.
        folder: `mlflow/` (skops), `model.joblib`, and `columns.json`.
        columns: names, in order.
        texts: how many of them, the last ones, are text; the others are floats.
        rows: different rows, as JSON has them: None is null.
        expected: the model's own probability of each row.
        batch: 10,000 rows, all numbers, or empty where batches of this model are not measured.
        batch_expected: the model's own probability of each of these.
    """

    name: str
    folder: Path
    columns: list[str]
    texts: int
    rows: list[list[Any]]
    expected: np.ndarray[Any, Any]
    batch: np.ndarray[Any, Any]
    batch_expected: np.ndarray[Any, Any]

    @property
    def mlflow(self) -> Path:
        return self.folder / "mlflow"

    @property
    def joblib(self) -> Path:
        return self.folder / "model.joblib"


def _numbers(count: int, columns: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(random.normal(0, 1, (count, columns)), columns=[f"x{one:02d}" for one in range(columns)])


def _target(frame: pd.DataFrame, seed: int) -> np.ndarray[Any, Any]:
    """Return a target which depends on the first five columns in a way that takes trees to learn."""
    first = frame.iloc[:, :5].fillna(0).to_numpy()
    score = first[:, 0] * first[:, 1] + np.sin(2 * first[:, 2]) + (first[:, 3] > 0.3) - 0.5 * first[:, 4]
    return (score + np.random.default_rng(seed).normal(0, 0.5, len(frame)) > 0.5).astype(int)


def _trees(folder: Path) -> Model:
    from sklearn.ensemble import HistGradientBoostingClassifier

    frame = _numbers(_FIT, 10, seed=1)
    model = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=1)
    return _save("trees", folder, model.fit(frame, _target(frame, 2)), frame, _numbers(ROWS, 10, 3), batch=10_000)


def _forest(folder: Path) -> Model:
    """Return a model whose call costs more than everything around it."""
    from sklearn.ensemble import RandomForestClassifier

    frame = _numbers(4_000, 10, seed=4)
    model = RandomForestClassifier(n_estimators=300, max_depth=12, random_state=1, n_jobs=1)
    return _save("forest", folder, model.fit(frame, _target(frame, 5)), frame, _numbers(ROWS, 10, 6))


_NUMERIC, _TEXTS = 75, 25


def _mixed_frame(count: int, seed: int) -> pd.DataFrame:
    """Return 75 numeric and 25 text columns; every third column has nulls, a tenth of its values."""
    random = np.random.default_rng(seed)
    frame = _numbers(count, _NUMERIC, seed)
    for one in range(50, _NUMERIC):
        frame.isetitem(one, random.integers(0, 1000, count).astype("float64"))
    frame.columns = [f"number_{one:02d}" for one in range(_NUMERIC)]
    texts = {
        f"text_{one:02d}": random.choice([f"value-{one}-{kind}" for kind in range(4 + 2 * one)], count)
        for one in range(_TEXTS)
    }
    frame = pd.concat([frame, pd.DataFrame(texts)], axis=1)
    for one in range(0, frame.shape[1], 3):
        lost = random.random(count) < 0.1
        frame.isetitem(one, frame.iloc[:, one].mask(lost))
    return frame


def _mixed(folder: Path) -> Model:
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    frame = _mixed_frame(_FIT, seed=7)
    # A null is what an unknown value is: servers hand it over as None or as NaN, which encoders take for two things.
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1)
    texts = [name for name in frame.columns if name.startswith("text_")]
    model = make_pipeline(
        make_column_transformer((encoder, texts), remainder="passthrough"),
        HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=1),
    )
    target = _target(frame, 8) ^ (frame["text_01"] == "value-1-0").to_numpy()
    return _save("mixed", folder, model.fit(frame, target), frame, _mixed_frame(ROWS, 9), texts=_TEXTS)


_MAKERS: dict[str, Callable[[Path], Model]] = {"trees": _trees, "forest": _forest, "mixed": _mixed}


def make(name: str, folder: Path) -> Model:
    """Fit the model `name` and write it below `folder`."""
    with warnings.catch_warnings():
        # MLflow speaks of its own classes, and of whole numbers, which there are none of.
        warnings.simplefilter("ignore")
        return _MAKERS[name](folder / name)


def _save(
    name: str, folder: Path, model: Any, fitted: pd.DataFrame, frame: pd.DataFrame, *, texts: int = 0, batch: int = 0
) -> Model:
    import json

    import joblib
    import mlflow.sklearn
    import skops.io
    from mlflow.models import infer_signature

    folder.mkdir(parents=True)
    mlflow.sklearn.save_model(
        model,
        str(folder / "mlflow"),
        serialization_format="skops",
        skops_trusted_types=skops.io.get_untrusted_types(data=skops.io.dumps(model)),
        pyfunc_predict_fn="predict_proba",
        signature=infer_signature(fitted, model.predict_proba(fitted.head(5))),
        input_example=fitted.head(5),
        pip_requirements=["scikit-learn==1.9.1", "skops==0.16.0", "pandas==3.1.1", "numpy==2.4.6"],
    )
    joblib.dump(model, folder / "model.joblib")
    columns = [str(column) for column in frame.columns]
    (folder / "columns.json").write_text(json.dumps({"columns": columns, "texts": texts}))
    # Of what JSON will say: each number is written such that it is read as the same one.
    rows = [[None if value is None or value != value else value for value in row] for row in frame.values.tolist()]
    large = _numbers(batch, frame.shape[1], 10) if batch else frame.head(0)
    return Model(
        name,
        folder,
        columns,
        texts,
        rows,
        model.predict_proba(frame)[:, 1],
        large.to_numpy() if batch else np.empty((0, 0)),
        model.predict_proba(large)[:, 1] if batch else np.empty(0),
    )
