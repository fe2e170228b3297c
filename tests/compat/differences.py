"""The differences between tidemill's answers and MLflow's that are meant, each with its reason and an example.

A difference that is not listed here fails the tests. A listed one whose example no longer differs fails too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .models import Signature
from .oracle import JSON, Answer


@dataclass(frozen=True)
class Case:
    """One request and both answers.

    Attributes:
        signature: of the model.
        body: a JSON value or a text.
        content_type: of the body.
        theirs: MLflow's answer.
        ours: tidemill's answer.
    """

    signature: Signature
    body: Any
    content_type: str
    theirs: Answer
    ours: Answer

    def __str__(self) -> str:
        """Return the case as a report."""
        return (
            f"{self.signature}\n  {self.content_type}: {self.body!r}\n"
            f"  MLflow:   {self.theirs}\n  tidemill: {self.ours}"
        )


@dataclass(frozen=True)
class Example:
    """A request that shows a difference.

    Attributes:
        answer: the expression that the model answers; None: the model describes what it received.
    """

    signature: Signature
    body: Any
    content_type: str = JSON
    answer: str | None = None


@dataclass(frozen=True)
class Difference:
    """One difference that is meant.

    Attributes:
        id: a short name.
        theirs: what MLflow does.
        ours: what tidemill does.
        why: the reason.
        recognises: tells whether a case is this difference, as narrowly as possible.
        example: a request that shows it.
    """

    id: str
    theirs: str
    ours: str
    why: str
    recognises: Callable[[Case], bool]
    example: Example


DIFFERENCES: list[Difference] = []


def find(case: Case) -> Difference | None:
    """Return the listed difference that explains `case`, or None."""
    return next((difference for difference in DIFFERENCES if difference.recognises(case)), None)
