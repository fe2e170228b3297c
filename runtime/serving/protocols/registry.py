"""The list of serving protocols: the server registers one POST route for each."""

from __future__ import annotations

from . import mlflow, open_inference, predict
from .base import InferenceProtocol

PROTOCOLS: tuple[InferenceProtocol, ...] = (mlflow.PROTOCOL, predict.PROTOCOL, open_inference.PROTOCOL)
