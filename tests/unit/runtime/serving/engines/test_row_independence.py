"""Which models are known to treat their rows independently, and which only seem to."""

from __future__ import annotations

import functools
import unittest
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import BisectingKMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.decomposition import NMF, PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.linear_model import LinearRegression, LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import GridSearchCV, TunedThresholdClassifierCV
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, PowerTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.utils import all_estimators
from sklearn.utils._test_common.instance_generator import _construct_instances
from tidemill.runtime.serving.engines.mlmodel import MLmodel
from tidemill.runtime.serving.engines.row_independence import (
    declared_independent,
    why_estimator_unknown,
    why_unknown,
)

_RANDOM = np.random.default_rng(0)
X = _RANDOM.uniform(0.1, 1.0, (30, 4))
Y = np.arange(30) % 2
METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "score_samples", "transform")


class Shares(BaseEstimator):
    """Divides by the sum of the rows."""

    def fit(self, _rows: Any, _truth: Any = None) -> Shares:
        return self

    def transform(self, rows: Any) -> Any:
        return rows / np.sum(rows, axis=0)


class ShareRegressor(LinearRegression):
    """A subclass, whose answer depends on the other rows."""

    def predict(self, X: Any) -> Any:  # noqa: N803 - as in scikit-learn
        return super().predict(X) - super().predict(X).mean()


# A class can claim to be from scikit-learn.
Disguised = type("Disguised", (ShareRegressor,), {"__module__": "sklearn.linear_model._base"})


def product(one: Any, other: Any) -> Any:
    return one @ other.T


def mean_distance(one: Any, other: Any) -> float:
    return float(np.abs(one - other).mean())


KNOWN = [
    LinearRegression(),
    make_pipeline(StandardScaler(), PCA(2), LogisticRegression()),
    make_pipeline(FeatureUnion([("a", StandardScaler()), ("b", PowerTransformer())]), RandomForestClassifier(3)),
    make_pipeline(
        ColumnTransformer([("n", StandardScaler(), [0, 1]), ("p", "passthrough", [2]), ("d", "drop", [3])]),
        HistGradientBoostingClassifier(max_iter=3),
    ),
    make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()),
    make_pipeline(SelectKBest(f_classif, k=2), SVC()),
    GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2, scoring="accuracy"),
    StackingClassifier([("a", LogisticRegression())], cv=2),
    VotingRegressor([("a", LinearRegression())]),
    CalibratedClassifierCV(LogisticRegression(), cv=2),
    TransformedTargetRegressor(LinearRegression(), transformer=StandardScaler()),
    GaussianProcessRegressor(RBF() + WhiteKernel()),
    KNeighborsClassifier(),
    LogisticRegressionCV(cv=2, scoring="roc_auc", l1_ratios=(0,), use_legacy_attributes=False),
    LocalOutlierFactor(n_neighbors=3, novelty=True),
    TunedThresholdClassifierCV(LogisticRegression(), cv=2),
    BisectingKMeans(2),
    IsolationForest(n_estimators=3),
    FunctionTransformer(),
    DummyClassifier(strategy="prior"),
]
UNKNOWN = [
    (make_pipeline(FunctionTransformer(np.atleast_2d), LinearRegression()), "atleast_2d"),
    (make_pipeline(FunctionTransformer(np.log1p), LinearRegression()), "log1p"),
    (make_pipeline(StandardScaler(), Shares(), LinearRegression()), "Shares"),
    (ShareRegressor(), "ShareRegressor"),
    (Disguised(), "Disguised"),
    (make_pipeline(ColumnTransformer([("s", Shares(), [0])], remainder=Shares()), LinearRegression()), "Shares"),
    (StackingClassifier([("a", make_pipeline(Shares(), LogisticRegression()))], cv=2), "Shares"),
    (GridSearchCV(make_pipeline(Shares(), LogisticRegression()), {}, cv=2), "Shares"),
    (CalibratedClassifierCV(make_pipeline(Shares(), LogisticRegression()), cv=2), "Shares"),
    (TransformedTargetRegressor(LinearRegression(), func=np.log1p, inverse_func=np.expm1), "log1p"),
    (KNeighborsClassifier(metric=mean_distance), "mean_distance"),
    (KNeighborsClassifier(weights=lambda distances: distances), "lambda"),
    (SVC(kernel=functools.partial(product)), "partial"),
    (LocalOutlierFactor(n_neighbors=3), "novelty"),
    (make_pipeline(NMF(2, max_iter=1000, tol=0.1), LinearRegression()), "NMF"),
    (DummyClassifier(strategy="uniform", random_state=0), "random"),
]


def named(value: Any) -> str:
    return type(value).__name__ if isinstance(value, BaseEstimator) else str(value)


@pytest.mark.parametrize("estimator", KNOWN, ids=named)
def test_classes_of_scikit_learn_are_known(estimator: Any) -> None:
    assert why_estimator_unknown(estimator.fit(X, Y)) is None


@pytest.mark.parametrize(("estimator", "why"), UNKNOWN, ids=named)
def test_code_of_others_and_dependent_classes_are_not_known(estimator: Any, why: str) -> None:
    reason = why_estimator_unknown(estimator.fit(X, Y))
    assert why in str(reason)


def test_text_columns_chosen_by_type_are_known() -> None:
    texts = ["one flight", "two flights", "three"]
    assert why_estimator_unknown(TfidfVectorizer().fit(texts)) is None
    assert why_estimator_unknown(TfidfVectorizer(tokenizer=str.split, token_pattern=None).fit(texts)) is not None
    chosen = ColumnTransformer([("n", StandardScaler(), make_column_selector(dtype_include="number"))])
    assert why_estimator_unknown(chosen) is None


def test_a_method_put_on_an_estimator_is_code_of_others() -> None:
    fitted = LinearRegression().fit(X, Y)
    fitted.predict = lambda rows: np.full(len(rows), len(rows))
    assert "lambda" in str(why_estimator_unknown(fitted))


def _instances() -> list[Any]:
    found: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _, kind in all_estimators():
            if not any(hasattr(kind, method) for method in METHODS):
                continue
            with suppress(unittest.SkipTest):  # a wrapper without a default
                found.extend(_construct_instances(kind))
    return found


def _flat(given: Any) -> Any:
    if isinstance(given, list):  # one array for each target
        return np.concatenate([np.asarray(each) for each in given], axis=1)
    return given.toarray() if hasattr(given, "toarray") else np.asarray(given)


def _batch_differs(fitted: Any, method: str, rows: Any) -> bool:
    """Return whether the answers for single rows are other ones than for all rows."""
    whole = _flat(getattr(fitted, method)(rows))
    slices = [slice(index, index + 1) for index in range(0, len(rows), 7)] + [slice(5, 20)]
    parts = [_flat(getattr(fitted, method)(rows[part])) for part in slices]
    expected = [whole[part] for part in slices]
    if whole.dtype.kind in "fc":
        return not all(
            one.shape == other.shape and np.allclose(one, other, atol=1e-6)
            for one, other in zip(parts, expected, strict=True)
        )
    return not all(np.array_equal(one, other) for one, other in zip(parts, expected, strict=True))


def test_every_class_of_scikit_learn_whose_rows_depend_on_each_other_is_found() -> None:
    wrong: list[str] = []
    compared: set[str] = set()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for estimator in _instances():
            for rows, truth in ((X, Y), (X, X), (X[:, :1], Y), (np.arange(30) % 3, Y)):
                try:
                    fitted = estimator.fit(rows, truth)
                    methods = [name for name in METHODS if hasattr(fitted, name)]
                    results = {name: _batch_differs(fitted, name, rows) for name in methods}
                except Exception:  # noqa: BLE001 - it takes other rows, or a fit with a target
                    continue
                if results:
                    compared.add(type(estimator).__name__)
                if any(results.values()) and why_estimator_unknown(fitted) is None:
                    wrong.append(f"{estimator}: {results}")
    assert wrong == []
    # The comparison itself works, for nearly all classes that can answer.
    assert len(compared) > 120
    assert {"NMF", "MiniBatchNMF", "KMeans", "Isomap", "SparsePCA", "GaussianMixture"} <= compared


def mlmodel(loader: str, tmp_path: Path, **flavor: Any) -> MLmodel:
    name = loader.rpartition(".")[2]
    return MLmodel(tmp_path, {"python_function": {"loader_module": loader}, name: flavor}, {}, {})


def test_other_flavours(tmp_path: Path) -> None:
    assert why_unknown(mlmodel("mlflow.lightgbm", tmp_path)) is None
    assert why_unknown(mlmodel("mlflow.lightgbm", tmp_path, model_class="lightgbm.sklearn.LGBMClassifier")) is None
    assert why_unknown(mlmodel("mlflow.xgboost", tmp_path, model_class="xgboost.core.Booster")) is None
    assert why_unknown(mlmodel("mlflow.catboost", tmp_path)) is None
    assert "mine" in str(why_unknown(mlmodel("mlflow.lightgbm", tmp_path, model_class="mine.Regressor")))
    assert "mine" in str(why_unknown(mlmodel("mlflow.xgboost", tmp_path, model_class="mine.Regressor")))
    for loader in ("mlflow.pyfunc.model", "mlflow.pyfunc.loaders.code_model", "mlflow.prophet", "mlflow.statsmodels"):
        assert loader in str(why_unknown(mlmodel(loader, tmp_path)))
    assert "own environment" in str(why_unknown(mlmodel("mlflow.sklearn", tmp_path)))


def test_only_methods_that_answer_by_row_are_known(tmp_path: Path) -> None:
    fitted = LinearRegression().fit(X, Y)
    function = {"loader_module": "mlflow.sklearn", "predict_fn": "score"}
    assert "score" in str(why_unknown(MLmodel(tmp_path, {"python_function": function}, {}, {}), fitted))
    function["predict_fn"] = "predict"
    assert why_unknown(MLmodel(tmp_path, {"python_function": function}, {}, {}), fitted) is None


@pytest.mark.parametrize(("value", "expected"), [(True, True), (False, False), ("true", None), (None, None)])
def test_a_declaration_is_read_from_the_metadata(tmp_path: Path, value: Any, expected: bool | None) -> None:
    declared = MLmodel(tmp_path, {}, {}, {}, {"tidemill.rows_independent": value})
    assert declared_independent(declared) is expected
