"""Any model, through MLflow."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..contract.model_contract import Contract
from ..inference.batch import Batch, Outputs
from .mlmodel import Described, forbidding_pickle
from .model_code import fresh_code
from .outputs import normalise
from .prepared import Output, Prepared, Wanted
from .single_thread import one_thread

__all__ = ["PyfuncEngine", "load", "open_model"]


class PyfuncEngine:
    """The engine.

    Args:
        model: loaded by MLflow.
        contract: what the rows are.
        output: what it gives; of a `score` the second column is taken.
        mergeable: whether rows of several requests may go into one call.
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
        """Return one value a row."""
        one_thread()
        given = self._model.predict(self._contract.to_pandas(batch))
        if self.output == "score" and isinstance(given, np.ndarray) and given.shape[1:] == (2,):
            given = given[:, 1]
        return normalise(given, batch.rows)

    def close(self) -> None:
        """Let go of the model."""
        del self._model


def open_model(described: Described) -> Any:
    """Return the model as MLflow loads it.

    Raises:
        UnfitError: it may hold a pickle. What else a broken model raises when loaded passes through.
    """
    described.check()
    root = described.folder.parent.parent
    with forbidding_pickle(described), fresh_code(root, described.code), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import pyfunc

        return pyfunc.load_model(str(described.folder), suppress_warnings=True)


def load(prepared: Prepared, folder: Path, settings: Wanted) -> PyfuncEngine:
    """Load what preparation chose."""
    del settings
    return PyfuncEngine(
        open_model(Described.read(folder.resolve() / "model")),
        prepared.contract,
        output=prepared.output,
        mergeable=bool(prepared.engine["mergeable"]),
    )
