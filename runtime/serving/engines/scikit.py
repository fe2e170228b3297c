"""A model of scikit-learn itself, without MLflow: made by skops, of nothing but trusted types.

Where preparation has found a plan for all that comes before its estimator, that is asked with the plan's matrix;
else the whole model is asked with a data frame.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..contract.model_contract import Contract, MissingText
from ..inference.batch import Batch, Outputs
from .mlmodel import Described
from .model_code import fresh_code
from .outputs import normalise
from .pipeline_plan import Plan
from .prepared import Output, Prepared, Wanted
from .single_thread import one_thread

__all__ = ["ScikitEngine", "last_of", "load", "missing_text", "open_model"]


class ScikitEngine:
    """The engine.

    Args:
        model: fitted; it is changed so that it uses one thread.
        method: of the model, which answers.
        contract: what the rows are.
        output: what it gives; of a `score` the second column is taken.
        mergeable: whether rows of several requests may go into one call.
        plan: what stands for all steps but the last, and for the data frame.
    """

    name = "sklearn"

    def __init__(
        self,
        model: Any,
        method: str,
        contract: Contract,
        *,
        output: Output = "prediction",
        mergeable: bool = False,
        plan: Plan | None = None,
    ) -> None:
        _for_each(model, _one_job)
        if plan is not None:
            model = last_of(model)
            _for_each(model, _forget_names)
        self._predict = getattr(model, method)
        self._contract = contract
        self.output: Output = output
        self._plan = plan
        self.mergeable = mergeable

    def predict(self, batch: Batch) -> Outputs:
        """Return one value a row."""
        one_thread()
        plan = self._plan
        given = self._predict(plan.matrix(batch.values) if plan is not None else self._contract.to_pandas(batch))
        if self.output == "score" and isinstance(given, np.ndarray) and given.shape[1:] == (2,):
            given = given[:, 1]
        return normalise(given, batch.rows)

    def close(self) -> None:
        """Let go of the model."""
        del self._predict


def open_model(described: Described) -> Any:
    """Return the fitted model.

    Raises:
        UnfitError: it may hold a pickle, or is not where it says. skops raises for types which nobody trusts.
    """
    import skops.io

    described.check()
    path = described.inside(str(described.function.get("model_path") or described.flavor.get("pickled_model")))
    with fresh_code(described.folder.parent.parent, described.code), warnings.catch_warnings():
        # Of another version of scikit-learn: what it gives is compared with what it gave, not guessed from this.
        warnings.simplefilter("ignore")
        return skops.io.load(path, trusted=described.trusted_types)


def load(prepared: Prepared, folder: Path, settings: Wanted) -> ScikitEngine:
    """Load what preparation chose."""
    del settings
    described = Described.read(folder.resolve() / "model")
    plan = prepared.engine.get("plan")
    return ScikitEngine(
        open_model(described),
        described.method,
        prepared.contract,
        output=prepared.output,
        mergeable=bool(prepared.engine["mergeable"]),
        plan=Plan(plan) if plan is not None else None,
    )


def last_of(model: Any) -> Any:
    """Return the estimator at the end of a pipeline, or the model itself."""
    from sklearn.pipeline import Pipeline

    while type(model) is Pipeline:
        model = model.steps[-1][1]
    return model


def _for_each(value: Any, change: Any, seen: set[int] | None = None) -> None:
    """Apply `change` to each estimator in `value`: itself, and those which it was fitted from."""
    from sklearn.base import BaseEstimator

    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, dict):
        for item in value.values():
            _for_each(item, change, seen)
    elif isinstance(value, list | tuple):
        for item in value:
            _for_each(item, change, seen)
    elif isinstance(value, np.ndarray) and value.dtype == object:
        for item in value.ravel():
            _for_each(item, change, seen)
    elif isinstance(value, BaseEstimator):
        change(value)
        for item in vars(value).values():
            _for_each(item, change, seen)


def missing_text(model: Any) -> MissingText:
    """Return what a fitted `model` holds for missing text: what its encoders and imputers were fitted with.

    None and NaN are two things to them: the one which they do not know is an unknown category, or is not filled.
    """
    seen: set[MissingText] = set()

    def look(estimator: Any) -> None:
        told: list[Any] = [np.asarray(each, dtype=object) for each in getattr(estimator, "categories_", ())]
        # An imputer looks for one thing; where that is a NaN among numbers alone, it is no matter of text.
        if np.asarray(getattr(estimator, "statistics_", ())).dtype == object:
            told.append([getattr(estimator, "missing_values", "")])
        for value in (each for values in told for each in values):
            if value is None:
                seen.add("None")
            elif isinstance(value, float) and np.isnan(value):
                seen.add("NaN")

    _for_each(model, look)
    return "NaN" if seen == {"NaN"} else "None"


def _one_job(estimator: Any) -> None:
    # Starting threads for a row costs more than the row.
    if getattr(estimator, "n_jobs", None) is not None:
        estimator.n_jobs = 1


def _forget_names(estimator: Any) -> None:
    # It is given a matrix, whose columns have no names to compare.
    vars(estimator).pop("feature_names_in_", None)
