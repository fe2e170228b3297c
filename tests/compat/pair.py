"""Both servers with the same model, and what a test says about their answers."""

from __future__ import annotations

from pathlib import Path

from tidemill.runtime.serving.versions.model import ServedModel

from .differences import Case, find
from .models import Models, Signature
from .oracle import Oracle, agree
from .server import InProcess
from .strategies import Request


class Pair:
    """MLflow's scoring function and tidemill's application, for models that are made when they are first needed."""

    def __init__(self, folder: Path) -> None:
        self.models = Models(folder)
        self.server = InProcess(folder / "server")
        self._known: dict[str, tuple[Oracle, ServedModel]] = {}

    def ask(self, signature: Signature, request: Request, answer: str | None = None) -> Case:
        """Return both answers of a model; it describes what it receives, or answers the expression `answer`."""
        oracle = self._serve(signature, answer)
        theirs = oracle.invocations(request.body, request.content_type)
        ours = self.server.invocations(request.body, request.content_type)
        return Case(signature, request.body, request.content_type, theirs, ours)

    def _serve(self, signature: Signature, answer: str | None) -> Oracle:
        name = f"{signature!r} {answer}"
        if name not in self._known:
            models = self.models
            folder = models.describing(signature) if answer is None else models.answering(answer, signature)
            self._known[name] = (Oracle(folder), self.server.load(folder))
        oracle, served = self._known[name]
        self.server.use(served)
        return oracle

    def close(self) -> None:
        """Release the models."""
        self.server.close()


def check(case: Case) -> None:
    """Fail if the answers differ and the difference is not listed."""
    assert agree(case.ours, case.theirs) or find(case), f"a difference that is not listed\n  {case}"
