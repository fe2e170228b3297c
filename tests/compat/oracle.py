"""MLflow's answers: the function behind `/invocations` of `mlflow models serve`, without a network."""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc import scoring_server

JSON = "application/json"
CSV = "text/csv"
NOT_SERVED = 503
"""Stands for the answer of a model that tidemill refuses to serve."""


@dataclass(frozen=True)
class Answer:
    """The answer to a request.

    Attributes:
        status: of HTTP.
        value: `predictions`, or the message of a refusal.
    """

    status: int
    value: Any

    @property
    def ok(self) -> bool:
        """Whether the request was answered."""
        return self.status == 200


class Oracle:
    """A model as `mlflow models serve` would serve it."""

    def __init__(self, folder: Path) -> None:
        with quiet():
            self.model = mlflow.pyfunc.load_model(str(folder))
        self._schema = self.model.metadata.get_input_schema()

    def invocations(self, body: Any, content_type: str = JSON) -> Answer:
        """Return the answer to `body`: a text, bytes, or a JSON value."""
        with quiet():
            try:
                given = scoring_server.invocations(as_text(body), content_type, self.model, self._schema)
            except MlflowException as error:
                cause = str(error.json_kwargs.get("stack_trace", "")).strip().rpartition("\n")[2]
                return Answer(error.get_http_status_code(), f"{error.message} {cause}".strip())
            except Exception as error:  # noqa: BLE001 - the server answers 500
                return Answer(500, f"{type(error).__name__}: {error}")
        value = read(given.response) if given.status == 200 else given.response
        return Answer(given.status, value)


def as_text(body: Any) -> str | bytes:
    """Return a body as it is sent."""
    return body if isinstance(body, (str, bytes)) else json.dumps(body)


def read(text: str | bytes) -> Any:
    """Return the predictions in a document, with NaN and infinities as Python reads them."""
    document = json.loads(text)
    return document["predictions"] if isinstance(document, dict) and "predictions" in document else document


def same(ours: Any, theirs: Any, tolerance: float = 0.0) -> bool:
    """Return whether two JSON values are equal, with their types; NaN equals NaN, and 1, 1.0 and true all differ.

    Floats may differ by `tolerance`, absolute or relative.
    """
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, float):
        close = ours == theirs or math.isclose(ours, theirs, rel_tol=tolerance, abs_tol=tolerance)
        return close or (math.isnan(ours) and math.isnan(theirs))
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(same(*pair, tolerance) for pair in zip(ours, theirs, strict=True))
    if isinstance(ours, dict):
        return list(ours) == list(theirs) and all(same(ours[key], theirs[key], tolerance) for key in ours)
    return ours == theirs


def agree(ours: Answer, theirs: Answer, tolerance: float = 0.0) -> bool:
    """Return whether both answered the same, or both refused: the request (4xx), or the model's answer (500)."""
    if ours.ok and theirs.ok:
        return same(ours.value, theirs.value, tolerance)
    return not theirs.ok and (ours.status in range(400, 500) or ours.status == theirs.status == 500)


@contextmanager
def quiet() -> Generator[None]:
    """Silence the warnings and the log: they are about other things than the answer."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
