"""Decides whether a model is known to treat its rows independently, so that requests can share one call.

A model is known to do so if its class, and the class of everything that it calls, is one of a library whose models
answer row by row. Trying rows proves nothing: a model that divides by the sum of its rows is the same for one row. So a
model with code of its own is never known; its author can declare it (`DECLARATION`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from .answer_kind import ROW_METHODS
from .mlmodel import MLmodel

DECLARATION = "tidemill.rows_independent"
"""Key in the metadata of an MLflow model: whether the author declares that rows do not affect each other."""

_BOOSTERS = {"mlflow.catboost": "catboost", "mlflow.lightgbm": "lightgbm", "mlflow.xgboost": "xgboost"}
# Only `fit` uses these; they do not affect an answer.
_FIT_ONLY = frozenset(
    {
        *("callbacks", "cv", "cv_results_", "error_score", "multimetric_", "param_distributions", "param_grid"),
        *("random_state", "refit", "score_func", "scorer_", "scoring", "_curve_scorer", "_kmeans_single"),
        *("_random_state", "_scorer"),
    }
)
_DATA_MODULES = ("datetime", "decimal", "numpy", "pandas", "scipy.interpolate", "scipy.sparse")


def declared_independent(mlmodel: MLmodel) -> bool | None:
    """Return what the author of the model declared in its metadata; None if nothing."""
    value = mlmodel.metadata.get(DECLARATION)
    return value if isinstance(value, bool) else None


def why_unknown(mlmodel: MLmodel, estimator: Any = None) -> str | None:
    """Return why the model is not known to treat its rows independently, or None if it is.

    Args:
        mlmodel: of the model.
        estimator: the loaded scikit-learn model; None if it is another model, or is not loaded in this process.
    """
    loader = mlmodel.loader
    if mlmodel.is_sklearn:
        if estimator is None:
            return "scikit-learn runs in the model's own environment, where its classes are not checked"
        if mlmodel.method not in ROW_METHODS:
            return f"it answers with {mlmodel.method}"
        return why_estimator_unknown(estimator)
    if loader in _BOOSTERS:
        library = _BOOSTERS[loader]
        kind = str(mlmodel.flavor.get("model_class") or f"{library}.")
        return None if kind.startswith(f"{library}.") else f"{kind} is not a class of {library}"
    if loader == "mlflow.onnx":
        return _why_onnx_unknown(mlmodel)
    return f"{loader} loads code that is not known to tidemill"


def why_estimator_unknown(estimator: Any) -> str | None:
    """Return why a fitted scikit-learn model is not known to treat its rows independently, or None if it is."""
    return _Check().reason(estimator)


def _why_onnx_unknown(mlmodel: MLmodel) -> str | None:
    data = mlmodel.flavor.get("data") or mlmodel.function.get("data")
    path = mlmodel.path_of(str(data))
    try:
        from .onnx_rows import why_graph_unknown
    except ImportError:
        return "the package onnx is not installed, which reads its operators"
    file = path if path.is_file() else path / "model.onnx"
    return why_graph_unknown(Path(file))


class _Check:
    """One walk over an estimator and everything in it."""

    def __init__(self) -> None:
        # The objects themselves, so that no identity is used twice.
        self._seen: dict[int, object] = {}

    def reason(self, value: Any) -> str | None:
        """Return why `value` is not known, or None if it is."""
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic, np.dtype)):
            return None
        if id(value) in self._seen:
            return None
        self._seen[id(value)] = value
        kind = type(value)
        if kind is np.ndarray:
            return self._first(value.ravel()) if value.dtype == object else None
        if kind in (list, tuple, set, frozenset):
            return self._first(value)
        if isinstance(value, (dict, Mapping)) and _is_of((*_DATA_MODULES, "builtins", "collections", "sklearn"), kind):
            return self._first(cast("Mapping[Any, Any]", value).values())
        if kind in (slice, range):
            return None
        if isinstance(value, type) and issubclass(value, (np.generic, bool, int, float, str)):
            return None  # such as the `dtype` of an encoder
        if callable(value) and not _is_of(("scipy.interpolate", "sklearn"), kind):
            return f"it has the function {getattr(value, '__name__', kind.__qualname__)}"
        return self._object_reason(value, kind)

    def _first(self, values: Any) -> str | None:
        return next((found for found in map(self.reason, values) if found is not None), None)

    def _object_reason(self, value: Any, kind: type) -> str | None:
        if _is_of(("sklearn",), kind):
            return _why_dependent(value, kind) or self._attributes_reason(value)
        if _is_of(_DATA_MODULES, kind):
            return None
        return f"{kind.__module__}.{kind.__qualname__} is not a class of scikit-learn"

    def _attributes_reason(self, value: Any) -> str | None:
        attributes: Mapping[str, Any] = getattr(value, "__dict__", {})
        return self._first(part for name, part in attributes.items() if name not in _FIT_ONLY)


def _is_of(modules: tuple[str, ...], kind: type) -> bool:
    """Return whether `kind` is really defined in one of `modules`; a class can claim any module."""
    name = kind.__module__
    if not any(name == module or name.startswith(f"{module}.") for module in modules):
        return False
    found: Any = sys.modules.get(name)
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is kind


def _why_dependent(value: Any, kind: type) -> str | None:
    """Return why an object of scikit-learn does not treat rows independently, or None if it does."""
    name = kind.__name__
    if name in ("MiniBatchNMF", "MiniBatchSparsePCA", "NMF", "SparsePCA"):
        return f"{name} solves for all rows together"
    if name == "PatchExtractor":
        return f"{name} does not return one row for each row"
    if name == "BernoulliRBM":
        return f"{name} draws at random for all rows together"
    if name == "LocalOutlierFactor" and not value.novelty:
        return f"{name} without novelty compares the rows with each other"
    if name == "DummyClassifier" and value.strategy in ("stratified", "uniform"):
        return f"{name} with strategy {value.strategy} draws at random for all rows together"
    if name == "IterativeImputer" and value.sample_posterior:
        return f"{name} with sample_posterior draws at random for all rows together"
    if name.startswith("PyFunc"):
        return "it has a distance that is a function"
    return None
