"""Models of LightGBM and XGBoost, whose files treelite reads. Only used in preparation."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ..inference.batch import Outputs
from .encoders import NotKnownError
from .estimators import Recipe
from .mlmodel import Described

__all__ = ["BOOSTERS", "booster_recipe"]

_LIGHTGBM = "lightgbm.basic.Booster"
BOOSTERS = {"mlflow.lightgbm": "load_lightgbm_model", "mlflow.xgboost": "load_xgboost_model"}


def booster_recipe(described: Described, answers: Outputs) -> Recipe:
    """Return how the model is compiled, which gave such `answers`.

    Raises:
        NotKnownError: it is stored in another way, or gives something else than scores.
    """
    if described.loader == "mlflow.lightgbm" and described.flavor.get("model_class") not in (None, _LIGHTGBM):
        raise NotKnownError("a model of LightGBM which is not in a file of its own")
    try:
        frontend: Any = importlib.import_module("treelite.frontend")
    except ImportError:
        raise NotKnownError('treelite is not installed (pip install "tidemill[compiled]")') from None
    data = described.flavor.get("data") or described.function.get("data")
    model = getattr(frontend, BOOSTERS[described.loader])(described.inside(str(data)))
    if not isinstance(answers, np.ndarray):
        raise NotKnownError("a booster which gives labels")
    width = 1 if answers.ndim == 1 else answers.shape[1]
    finish = {"kind": "column", "column": 0} if answers.ndim == 1 else {"kind": "matrix"}
    if model.input_type == "float32":
        # What is infinite in single precision is refused there.
        return Recipe(None, described.method, "trees", width, False, finish, ("float32",), "missing", trees=model)
    return Recipe(None, described.method, "trees", width, False, finish, (), "any", trees=model)
