"""Recipes for scikit-learn's estimators: which kernels compute them, and how raw scores become answers.

Only used in preparation.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import UnsupportedError

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Recipe:
    """How to compile an estimator.

    Attributes:
        estimator: fitted; None if `trees` is set.
        method: of the estimator that answers.
        family: which kernels compute it.
        width: number of raw scores for each row.
        margin: whether the kernel returns the scores before the link function.
        finish: how `compiled` turns the scores into answers.
        final_operations: operations of the plan on all features, after all others.
        finite: which values it accepts: `any`, `missing` (NaN but not infinity) or `all` (only finite ones).
        linear: coefficients, intercept and link of a linear model.
        trees: treelite's model, if it is not made from the estimator.
    """

    estimator: Any
    method: str
    family: Literal["trees", "linear"]
    width: int
    margin: bool
    finish: dict[str, Any]
    final_operations: tuple[str, ...] = ()
    finite: str = "all"
    linear: dict[str, Any] = field(default_factory=dict[str, Any])
    trees: Any = None


# Forests round all features to single precision.
_FOREST_CLASSIFIERS = (
    "RandomForestClassifier",
    "ExtraTreesClassifier",
    "DecisionTreeClassifier",
    "ExtraTreeClassifier",
)
_FOREST_REGRESSORS = frozenset(
    ("RandomForestRegressor", "ExtraTreesRegressor", "DecisionTreeRegressor", "ExtraTreeRegressor")
)
_LINEAR_REGRESSORS = frozenset(
    {
        *("ARDRegression", "BayesianRidge", "ElasticNet", "ElasticNetCV", "HuberRegressor", "Lars", "LarsCV", "Lasso"),
        *("LassoCV", "LassoLars", "LassoLarsCV", "LassoLarsIC", "LinearRegression", "LinearSVR", "MultiTaskElasticNet"),
        *("MultiTaskLasso", "OrthogonalMatchingPursuit", "PassiveAggressiveRegressor", "QuantileRegressor", "Ridge"),
        *("RidgeCV", "SGDRegressor", "TheilSenRegressor"),
    }
)
_LINEAR_CLASSIFIERS = frozenset(
    {
        *("LinearDiscriminantAnalysis", "LinearSVC", "LogisticRegression", "LogisticRegressionCV"),
        *("PassiveAggressiveClassifier", "Perceptron", "RidgeClassifier", "RidgeClassifierCV", "SGDClassifier"),
    }
)
_EXPONENTIAL = frozenset({"PoissonRegressor", "GammaRegressor"})


def find_recipe(estimator: Any, method: str, row: Matrix) -> Recipe:
    """Return how to compile `estimator`.

    Args:
        estimator: fitted.
        method: of the estimator that answers.
        row: one row of features, as a matrix, that it accepts.

    Raises:
        UnsupportedError: no kernel computes it.
    """
    kind = type(estimator).__name__
    if not type(estimator).__module__.startswith("sklearn."):
        raise UnsupportedError(f"the estimator {kind}, which is not from scikit-learn")
    finite = _finite(estimator, method, row)
    if kind in _LINEAR_REGRESSORS | _EXPONENTIAL and method == "predict":
        return _linear_regressor(estimator, kind, finite)
    if kind in _LINEAR_CLASSIFIERS:
        return _linear_classifier(estimator, kind, method, finite)
    if kind in _FOREST_CLASSIFIERS and _one_output(estimator):
        count = len(estimator.classes_)
        finish = _classes(estimator, method, count)
        return Recipe(estimator, method, "trees", count, method == "predict", finish, ("float32",), finite)
    if kind in _FOREST_REGRESSORS and method == "predict":
        finish = _values(estimator.n_outputs_)
        return Recipe(estimator, method, "trees", estimator.n_outputs_, False, finish, ("float32",), finite)
    if kind == "IsolationForest" and method == "predict":
        finish = {"kind": "outlier", "offset": float(estimator.offset_), "threshold": 0.0}
        return Recipe(estimator, method, "trees", 1, False, finish, ("float32",), finite)
    if kind in ("GradientBoostingClassifier", "HistGradientBoostingClassifier"):
        count = len(estimator.classes_)
        width = 1 if count == 2 else count
        rounding = ("float32",) if kind == "GradientBoostingClassifier" else ()
        finish = _classes(estimator, method, width, or_equal=kind == "GradientBoostingClassifier")
        return Recipe(estimator, method, "trees", width, method == "predict", finish, rounding, finite)
    if kind in ("GradientBoostingRegressor", "HistGradientBoostingRegressor") and method == "predict":
        rounding = ("float32",) if kind == "GradientBoostingRegressor" else ()
        return Recipe(estimator, method, "trees", 1, False, _values(1), rounding, finite)
    raise UnsupportedError(f"{method} of the estimator {kind}")


def without_categories(estimator: Any) -> Any:
    """Return a copy that takes the codes of categories; return an estimator without categories unchanged."""
    if getattr(estimator, "_preprocessor", None) is None:
        return estimator
    changed = copy.copy(estimator)
    changed._preprocessor = None
    vars(changed).pop("feature_names_in_", None)
    return changed


def _one_output(estimator: Any) -> bool:
    if estimator.n_outputs_ != 1:
        raise UnsupportedError("a classifier with several targets")
    return True


def _values(count: int) -> dict[str, Any]:
    return {"kind": "column", "column": 0} if count == 1 else {"kind": "matrix"}


def _classes(estimator: Any, method: str, width: int, *, or_equal: bool = False) -> dict[str, Any]:
    if method == "predict_proba":
        if width <= 2:
            if len(estimator.classes_) != 2:
                raise UnsupportedError("a classifier with one class")
            return {"kind": "column", "column": width - 1}
        return {"kind": "matrix"}
    if method == "predict":
        labels = estimator.classes_.tolist()
        if width == 1:
            return {"kind": "sign", "labels": labels, "or_equal": or_equal}
        return {"kind": "labels", "labels": labels}
    raise UnsupportedError(f"{method} of a classifier")


def _linear_regressor(estimator: Any, kind: str, finite: str) -> Recipe:
    coefficients = np.asarray(estimator.coef_, dtype=np.float64)
    several = coefficients.ndim == 2 and np.ndim(estimator.predict(np.zeros((1, coefficients.shape[-1])))) == 2
    linear = _product(estimator, "exp" if kind in _EXPONENTIAL else "identity")
    width = len(linear["coefficients"])
    return Recipe(estimator, "predict", "linear", width, False, _values(width if several else 1), (), finite, linear)


def _linear_classifier(estimator: Any, kind: str, method: str, finite: str) -> Recipe:
    linear = _product(estimator, "identity")
    width = len(linear["coefficients"])
    if method == "predict_proba":
        if kind == "SGDClassifier" and estimator.loss != "log_loss":
            raise UnsupportedError(f"predict_proba of {kind} with loss {estimator.loss}")
        one_vs_rest = kind == "SGDClassifier"
        linear["link"] = "sigmoid" if width == 1 else "one_vs_rest" if one_vs_rest else "softmax"
    labels = estimator.classes_
    if labels.ndim != 1:
        raise UnsupportedError("a classifier with several targets")
    return Recipe(estimator, method, "linear", width, False, _classes(estimator, method, width), (), finite, linear)


def _product(estimator: Any, link: str) -> dict[str, Any]:
    coefficients = np.atleast_2d(np.asarray(estimator.coef_, dtype=np.float64))
    intercept = np.broadcast_to(np.asarray(estimator.intercept_, dtype=np.float64).ravel(), (len(coefficients),))
    return {"coefficients": coefficients.tolist(), "intercept": intercept.tolist(), "link": link}


def _finite(estimator: Any, method: str, row: Matrix) -> str:
    """Find out which values the estimator accepts, so that the compiled one refuses the same values."""
    answers = getattr(estimator, method)

    def accepts(value: float) -> bool:
        try:
            answers(np.full_like(row, value))
        except ValueError:
            return False
        return True

    if not accepts(np.nan):
        return "all"
    return "any" if accepts(np.inf) else "missing"
