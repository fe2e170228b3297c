"""Serves a scikit-learn model without MLflow: skops loads it, from trusted types only. MLflow loads a trusted pickle.

If preparation has a plan for all steps before the estimator, the engine calls the estimator with the plan's matrix.
Otherwise it calls the whole model with a data frame.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..contract.model_contract import Contract, MissingText
from ..inference.batch import Batch, Outputs
from .mlmodel import MLmodel, limit_pickle
from .model_code import fresh_imports
from .outputs import binary_scores, normalise
from .pipeline_plan import PipelinePlan
from .prepared import HasPreparationSettings, Output, Prepared
from .single_thread import limit_threads


class ScikitEngine:
    """The engine of a scikit-learn model.

    Args:
        model: fitted; the engine changes it to use one thread.
        method: of the model that answers.
        contract: the model's inputs.
        output: the kind of its outputs; for `score`, the two columns become a `score`.
        plan: replaces all steps before the last, and the data frame.
    """

    name = "sklearn"

    def __init__(
        self,
        model: Any,
        method: str,
        contract: Contract,
        *,
        output: Output = "prediction",
        plan: PipelinePlan | None = None,
    ) -> None:
        _apply_to_estimators(model, _one_job)
        if plan is not None:
            model = final_estimator(model)
            _apply_to_estimators(model, _forget_names)
        self._predict = getattr(model, method)
        self._contract = contract
        self.output: Output = output
        self._plan = plan
        self.mergeable = False

    def predict(self, batch: Batch) -> Outputs:
        """Return what the model answers to `batch`."""
        limit_threads()
        plan = self._plan
        if plan is not None:
            data: Any = plan.matrix(batch.values)
        else:
            # scikit-learn needs all columns. The plan and the compiled engines take an absent one as null, and so here.
            data = self._contract.to_pandas(replace(batch, absent=frozenset()) if batch.absent else batch)
        outputs = normalise(self._predict(data), batch.rows)
        return binary_scores(outputs) if self.output == "score" else outputs

    def close(self) -> None:
        """Release the model."""
        del self._predict


def open_model(mlmodel: MLmodel, trust: Sequence[str] = ()) -> Any:
    """Return the fitted model.

    Raises:
        UnfitError: the model may hold a pickle, and pickles are not trusted; or a file is outside its folder.
        Exception: any error of skops, such as an untrusted type.
    """
    mlmodel.check(trust)
    path = mlmodel.path_of(str(mlmodel.function.get("model_path") or mlmodel.flavor.get("pickled_model")))
    with fresh_imports(mlmodel.folder.parent.parent, mlmodel.code), warnings.catch_warnings():
        # scikit-learn warns about another version of itself; preparation compares the answers instead.
        warnings.simplefilter("ignore")
        if mlmodel.pickle_reason() is not None:
            with limit_pickle(mlmodel, trust):
                from mlflow import sklearn

                return sklearn.load_model(str(mlmodel.folder))
        import skops.io

        return skops.io.load(path, trusted=mlmodel.trusted_types)


def load(prepared: Prepared, folder: Path, settings: HasPreparationSettings) -> ScikitEngine:
    """Return the engine that preparation selected."""
    mlmodel = MLmodel.read(folder.resolve() / "model")
    plan = prepared.engine.get("plan")
    return ScikitEngine(
        open_model(mlmodel, settings.trust),
        mlmodel.method,
        prepared.contract,
        output=prepared.output,
        plan=PipelinePlan(plan) if plan is not None else None,
    )


def final_estimator(model: Any) -> Any:
    """Return the estimator at the end of a pipeline, or the model itself."""
    from sklearn.pipeline import Pipeline

    while type(model) is Pipeline:
        model = model.steps[-1][1]
    return model


def _apply_to_estimators(value: Any, change: Any, seen: set[int] | None = None) -> None:
    """Apply `change` to `value`, if it is an estimator, and to all estimators inside it."""
    from sklearn.base import BaseEstimator

    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, dict):
        for item in value.values():
            _apply_to_estimators(item, change, seen)
    elif isinstance(value, list | tuple):
        for item in value:
            _apply_to_estimators(item, change, seen)
    elif isinstance(value, np.ndarray) and value.dtype == object:
        for item in value.ravel():
            _apply_to_estimators(item, change, seen)
    elif isinstance(value, BaseEstimator):
        change(value)
        for item in vars(value).values():
            _apply_to_estimators(item, change, seen)


def missing_text(model: Any) -> MissingText:
    """Return the value for missing text, None or NaN, that the model's encoders and imputers were fitted with.

    They distinguish the two: the other value is an unknown category to them, or is not filled. `any` if they were
    fitted with neither.
    """
    seen: set[MissingText] = set()

    def look(estimator: Any) -> None:
        known: list[Any] = [np.asarray(each, dtype=object) for each in getattr(estimator, "categories_", ())]
        # An imputer fills one value. If its statistics are all numbers, it does not fill text.
        if np.asarray(getattr(estimator, "statistics_", ())).dtype == object:
            known.append([getattr(estimator, "missing_values", "")])
        for value in (each for values in known for each in values):
            if value is None:
                seen.add("None")
            elif isinstance(value, float) and np.isnan(value):
                seen.add("NaN")

    _apply_to_estimators(model, look)
    if not seen:
        return "any"
    return "NaN" if seen == {"NaN"} else "None"


def _one_job(estimator: Any) -> None:
    # To start threads for one row costs more than the row.
    if getattr(estimator, "n_jobs", None) is not None:
        estimator.n_jobs = 1


def _forget_names(estimator: Any) -> None:
    # The estimator gets a matrix, whose columns have no names to compare.
    vars(estimator).pop("feature_names_in_", None)
