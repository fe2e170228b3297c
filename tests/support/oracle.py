"""What MLflow's own server, and tidemill, give to a model for one request."""

from __future__ import annotations

import json
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from tidemill.runtime.serving.contract.model_contract import Contract
from tidemill.runtime.serving.engines.pyfunc import PyfuncEngine
from tidemill.runtime.serving.http.content_negotiation import CSV, JSON
from tidemill.runtime.serving.protocols import mlflow
from tidemill.runtime.serving.protocols.base import InferenceRequest

from .protocols import LIMITS, served


class Recorder:
    """A model that keeps what it is given."""

    def __init__(self) -> None:
        self.data: Any = None
        self.params: Any = None
        self.answer: list[Any] = [1]

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[int]:
        self.data, self.params = model_input, params
        return self.answer


def signature(inputs: Any, params: Any = None) -> Any:
    """Return the signature with these column or tensor specs, and parameter specs."""
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, Schema

    return (
        ModelSignature(Schema(inputs)) if params is None else ModelSignature(Schema(inputs), params=ParamSchema(params))
    )


def pyfunc_of(of: Any) -> tuple[Any, Recorder]:
    """Return a model as MLflow loads it, with this signature, and what it records."""
    from mlflow.models import Model
    from mlflow.pyfunc import PyFuncModel

    meta = Model(signature=of)
    meta.flavors = {"python_function": {"loader_module": "mlflow.pyfunc.model"}}
    recorder = Recorder()
    return PyFuncModel(meta, recorder), recorder


def _body(payload: Any) -> tuple[bytes, str]:
    return (payload.encode(), CSV) if isinstance(payload, str) else (json.dumps(payload).encode(), JSON)


@contextmanager
def _quiet() -> Generator[None]:
    """Ignore the warnings of MLflow, among them those of its import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def seen_in_mlflow(of: Any, payload: Any) -> Recorder:
    """Return what `mlflow models serve` gives to a model for `payload`: CSV text or a JSON document.

    Raises the exception of MLflow if it refuses the request.
    """
    body, kind = _body(payload)
    with _quiet():
        from mlflow.pyfunc.scoring_server import invocations

        model, recorder = pyfunc_of(of)
        invocations(body.decode(), kind, model, of.inputs)
    return recorder


def contract_of(of: Any) -> Contract:
    """Return the contract of a signature, as after preparation."""
    params = None if of.params is None else json.loads(of.params.to_json())
    return Contract.from_json(json.loads(json.dumps(Contract.of(of.inputs, params).to_json())))


def seen_in_tidemill(of: Any, payload: Any) -> Recorder:
    """Return what tidemill gives to a model that MLflow loads, for `payload` on `/invocations`."""
    contract = contract_of(of)
    body, kind = _body(payload)
    batch = mlflow.decode(served(contract), InferenceRequest(body, kind), LIMITS).batch
    with _quiet():
        model, recorder = pyfunc_of(of)
        try:
            PyfuncEngine(model, contract).predict(batch)
        except ValueError:
            if recorder.data is None:
                raise
    return recorder
