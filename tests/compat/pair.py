"""Both servers with the same model, and what a test says about their answers."""

from __future__ import annotations

from pathlib import Path

from tidemill.runtime.serving.versions.model import ServedModel

from .differences import Case, find
from .models import Models, Signature
from .oracle import NOT_SERVED, Answer, Oracle, agree
from .server import InProcess
from .strategies import Request


class Pair:
    """MLflow's scoring function and tidemill's application, for models that are made when they are first needed."""

    def __init__(self, folder: Path) -> None:
        self.models = Models(folder)
        self.server = InProcess(folder / "server")
        self._known: dict[str, tuple[Oracle, ServedModel | Answer]] = {}

    def ask(self, signature: Signature, request: Request, answer: str | None = None) -> Case:
        """Return both answers of a model; it describes what it receives, or answers the expression `answer`."""
        oracle, served = self._model(signature, answer)
        theirs = oracle.invocations(request.body, request.content_type)
        if isinstance(served, Answer):
            ours = served
        else:
            self.server.use(served)
            ours = self.server.invocations(request.body, request.content_type)
        return Case(signature, request.body, request.content_type, theirs, ours, answer)

    def _model(self, signature: Signature, answer: str | None) -> tuple[Oracle, ServedModel | Answer]:
        """Return the model for both; for tidemill, its refusal if it cannot be served."""
        name = f"{signature!r} {answer}"
        if name not in self._known:
            models = self.models
            folder = models.describing(signature) if answer is None else models.answering(answer, signature)
            try:
                served = self.server.load(folder)
            except Exception as error:  # noqa: BLE001 - a broken model may raise anything
                served = Answer(NOT_SERVED, f"{type(error).__name__}: {error}")
            self._known[name] = (Oracle(folder), served)
        return self._known[name]

    def close(self) -> None:
        """Release the models."""
        self.server.close()


def check(case: Case) -> None:
    """Fail if the answers differ and the difference is not listed."""
    assert agree(case.ours, case.theirs) or find(case), f"a difference that is not listed\n  {case}"
