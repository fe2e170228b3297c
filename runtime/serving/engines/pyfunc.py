"""Serves any model through MLflow."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..contract import frames
from ..contract.field_errors import invalid_field
from ..contract.model_contract import Contract
from ..inference.batch import Batch, Outputs
from .mlmodel import MLmodel, limit_pickle
from .model_code import fresh_imports
from .outputs import binary_scores, normalise
from .prepared import HasPreparationSettings, Output, Prepared
from .single_thread import limit_threads

_LONGEST = 2000


def is_hint_error(text: str) -> bool:
    """Return whether MLflow's error says that the values do not match the model's type hint."""
    return "match type hint" in text or "against type hint" in text


class PyfuncEngine:
    """The engine of a model that MLflow loads.

    Args:
        model: loaded by MLflow.
        contract: the model's inputs.
        output: the kind of its outputs; for `score`, the two columns become a `score`.
    """

    name = "pyfunc"

    def __init__(self, model: Any, contract: Contract, *, output: Output = "prediction") -> None:
        self._model = model
        self._contract = contract
        self.output: Output = output
        self.mergeable = False

    def predict(self, batch: Batch) -> Outputs:
        """Return what the model answers to `batch`."""
        limit_threads()
        given = self._call(self._contract.to_pandas(batch), batch.params)
        outputs = normalise(given, batch.rows)
        return binary_scores(outputs) if self.output == "score" else outputs

    def _call(self, data: Any, params: Mapping[str, Any] | None) -> Any:
        # A copy: a model may change its parameters, and the default ones belong to all requests.
        copied = None if params is None else frames.copied(dict(params))
        try:
            return frames.predict(self._model, self._contract.documents, data, copied)
        except Exception as error:
            if self._contract.hinted and is_hint_error(str(error)):
                raise invalid_field("inputs", str(error)[:_LONGEST]) from None
            raise

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
    )
