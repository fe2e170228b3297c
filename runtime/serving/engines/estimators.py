"""What is known of scikit-learn's estimators: which kernels can compute them, and how answers follow from raw scores.

Only used in preparation.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .encoders import NotKnownError

__all__ = ["Recipe", "recipe", "without_categories"]

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Recipe:
    """How an estimator is compiled.

    Attributes:
        estimator: fitted; None where `trees` are given.
        method: of it, which answers.
        family: which kernels compute it.
        width: number of raw scores a row.
        margin: whether they are wanted before the last function.
        finish: what `compiled` makes of them.
        further: operations of the plan on all features, after the others.
        finite: which values it takes: `any`, `missing` or `all`.
        linear: coefficients, intercept and link, of a linear one.
        trees: treelite's model of it, where that is not made from the estimator.
    """

    estimator: Any
    method: str
    family: Literal["trees", "linear"]
    width: int
    margin: bool
    finish: dict[str, Any]
    further: tuple[str, ...] = ()
    finite: str = "all"
    linear: dict[str, Any] = field(default_factory=dict[str, Any])
    trees: Any = None


# These look at single precision, and hand on nothing else.
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
    (
        "ARDRegression",
        "BayesianRidge",
        "ElasticNet",
        "ElasticNetCV",
        "HuberRegressor",
        "Lars",
        "LarsCV",
        "Lasso",
        "LassoCV",
        "LassoLars",
        "LassoLarsCV",
        "LassoLarsIC",
        "LinearRegression",
        "LinearSVR",
        "MultiTaskElasticNet",
        "MultiTaskLasso",
        "OrthogonalMatchingPursuit",
        "PassiveAggressiveRegressor",
        "QuantileRegressor",
        "Ridge",
        "RidgeCV",
        "SGDRegressor",
        "TheilSenRegressor",
    )
)
_LINEAR_CLASSIFIERS = frozenset(
    (
        "LinearDiscriminantAnalysis",
        "LinearSVC",
        "LogisticRegression",
        "LogisticRegressionCV",
        "PassiveAggressiveClassifier",
        "Perceptron",
        "RidgeClassifier",
        "RidgeClassifierCV",
        "SGDClassifier",
    )
)
_EXPONENTIAL = frozenset({"PoissonRegressor", "GammaRegressor"})


def recipe(estimator: Any, method: str, row: Matrix) -> Recipe:
    """Return how `estimator` is compiled.

    Args:
        estimator: fitted.
        method: of it, which answers.
        row: a row of features, as a matrix, which it answers.

    Raises:
        NotKnownError: no kernel computes it.
    """
    kind = type(estimator).__name__
    if not type(estimator).__module__.startswith("sklearn."):
        raise NotKnownError(f"the estimator {kind}, which is not scikit-learn's")
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
        further = ("float32",) if kind == "GradientBoostingClassifier" else ()
        finish = _classes(estimator, method, width, or_equal=kind == "GradientBoostingClassifier")
        return Recipe(estimator, method, "trees", width, method == "predict", finish, further, finite)
    if kind in ("GradientBoostingRegressor", "HistGradientBoostingRegressor") and method == "predict":
        further = ("float32",) if kind == "GradientBoostingRegressor" else ()
        return Recipe(estimator, method, "trees", 1, False, _values(1), further, finite)
    raise NotKnownError(f"{method} of the estimator {kind}")


def without_categories(estimator: Any) -> Any:
    """Return a copy which takes categories as the codes that it makes of them; others are returned as they are."""
    if getattr(estimator, "_preprocessor", None) is None:
        return estimator
    changed = copy.copy(estimator)
    changed._preprocessor = None
    vars(changed).pop("feature_names_in_", None)
    return changed


def _one_output(estimator: Any) -> bool:
    if estimator.n_outputs_ != 1:
        raise NotKnownError("a classifier of several targets")
    return True


def _values(count: int) -> dict[str, Any]:
    return {"kind": "column", "column": 0} if count == 1 else {"kind": "matrix"}


def _classes(estimator: Any, method: str, width: int, *, or_equal: bool = False) -> dict[str, Any]:
    if method == "predict_proba":
        if width <= 2:
            if len(estimator.classes_) != 2:
                raise NotKnownError("a classifier of one class")
            return {"kind": "column", "column": width - 1}
        return {"kind": "matrix"}
    if method == "predict":
        labels = estimator.classes_.tolist()
        if width == 1:
            return {"kind": "sign", "labels": labels, "or_equal": or_equal}
        return {"kind": "labels", "labels": labels}
    raise NotKnownError(f"{method} of a classifier")


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
            raise NotKnownError(f"predict_proba of {kind} with loss {estimator.loss}")
        one_vs_rest = kind == "SGDClassifier"
        linear["link"] = "sigmoid" if width == 1 else "one_vs_rest" if one_vs_rest else "softmax"
    labels = estimator.classes_
    if labels.ndim != 1:
        raise NotKnownError("a classifier of several targets")
    return Recipe(estimator, method, "linear", width, False, _classes(estimator, method, width), (), finite, linear)


def _product(estimator: Any, link: str) -> dict[str, Any]:
    coefficients = np.atleast_2d(np.asarray(estimator.coef_, dtype=np.float64))
    intercept = np.broadcast_to(np.asarray(estimator.intercept_, dtype=np.float64).ravel(), (len(coefficients),))
    return {"coefficients": coefficients.tolist(), "intercept": intercept.tolist(), "link": link}


def _finite(estimator: Any, method: str, row: Matrix) -> str:
    """Ask the estimator which values it takes, so that the compiled one refuses what it refuses."""
    answers = getattr(estimator, method)

    def takes(value: float) -> bool:
        try:
            answers(np.full_like(row, value))
        except ValueError:
            return False
        return True

    if not takes(np.nan):
        return "all"
    return "any" if takes(np.inf) else "missing"
