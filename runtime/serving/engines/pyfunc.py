"""Serves any model through MLflow."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..contract.model_contract import Contract
from ..inference.batch import Batch, Outputs
from .mlmodel import MLmodel, limit_pickle
from .model_code import fresh_imports
from .outputs import normalise
from .prepared import HasPreparationSettings, Output, Prepared
from .single_thread import limit_threads


class PyfuncEngine:
    """The engine of a model that MLflow loads.

    Args:
        model: loaded by MLflow.
        contract: the model's inputs.
        output: the kind of its outputs; for `score`, the second column of two is returned.
        mergeable: whether one call may hold rows of several requests.
    """

    name = "pyfunc"

    def __init__(
        self, model: Any, contract: Contract, *, output: Output = "prediction", mergeable: bool = False
    ) -> None:
        self._model = model
        self._contract = contract
        self.output: Output = output
        self.mergeable = mergeable

    def predict(self, batch: Batch) -> Outputs:
        """Return one value for each row."""
        limit_threads()
        given = self._model.predict(self._contract.to_pandas(batch))
        if self.output == "score" and isinstance(given, np.ndarray) and given.shape[1:] == (2,):
            given = given[:, 1]
        return normalise(given, batch.rows)

    def close(self) -> None:
        """Release the model."""
        del self._model


def open_model(mlmodel: MLmodel, trust: Sequence[str] = ()) -> Any:
    """Return the model, loaded by MLflow.

    Raises:
        UnfitError: the model may hold a pickle, and pickles are not trusted.
        Exception: any error of a broken model.
    """
    mlmodel.check(trust)
    root = mlmodel.folder.parent.parent
    with limit_pickle(mlmodel, trust), fresh_imports(root, mlmodel.code), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import pyfunc

        return pyfunc.load_model(str(mlmodel.folder), suppress_warnings=True)


def load(prepared: Prepared, folder: Path, settings: HasPreparationSettings) -> PyfuncEngine:
    """Return the engine that preparation selected."""
    return PyfuncEngine(
        open_model(MLmodel.read(folder.resolve() / "model"), settings.trust),
        prepared.contract,
        output=prepared.output,
        mergeable=bool(prepared.engine["mergeable"]),
    )
