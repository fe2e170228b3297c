"""Recipes for LightGBM and XGBoost models, whose files treelite reads. Only used in preparation."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ..inference.batch import Outputs
from .errors import UnsupportedError
from .estimators import Recipe
from .mlmodel import MLmodel

_LIGHTGBM = "lightgbm.basic.Booster"
BOOSTERS = {"mlflow.lightgbm": "load_lightgbm_model", "mlflow.xgboost": "load_xgboost_model"}


def booster_recipe(mlmodel: MLmodel, answers: Outputs) -> Recipe:
    """Return how to compile the model that gave `answers`.

    Raises:
        UnsupportedError: the model is stored in another way, or returns something other than scores.
    """
    if mlmodel.loader == "mlflow.lightgbm" and mlmodel.flavor.get("model_class") not in (None, _LIGHTGBM):
        raise UnsupportedError("a LightGBM model that is not stored in LightGBM's own format")
    try:
        frontend: Any = importlib.import_module("treelite.frontend")
    except ImportError:
        raise UnsupportedError('treelite is not installed (pip install "tidemill[compiled]")') from None
    data = mlmodel.flavor.get("data") or mlmodel.function.get("data")
    model = getattr(frontend, BOOSTERS[mlmodel.loader])(mlmodel.path_of(str(data)))
    if not isinstance(answers, np.ndarray):
        raise UnsupportedError("a booster that returns labels")
    width = 1 if answers.ndim == 1 else answers.shape[1]
    finish = {"kind": "column", "column": 0} if answers.ndim == 1 else {"kind": "matrix"}
    if model.input_type == "float32":
        # XGBoost refuses values that are infinite in single precision.
        return Recipe(None, mlmodel.method, "trees", width, False, finish, ("float32",), "missing", trees=model)
    return Recipe(None, mlmodel.method, "trees", width, False, finish, (), "any", trees=model)
