"""Finds out whether a model answers by row or for the request as a whole: from its answers, else from its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..inference.batch import Batch, Engine, Outputs
from .outputs import Answer

if TYPE_CHECKING:
    from .mlmodel import MLmodel
    from .prepared import Independence
    from .sample_rows import Row

_REPEATED = 3
ROW_METHODS = frozenset(
    {
        *("predict", "predict_proba", "predict_log_proba", "predict_joint_log_proba"),
        *("decision_function", "score_samples", "transform"),
    }
)
"""The methods of scikit-learn that return one value for each row."""


def known_by_row(mlmodel: MLmodel, independence: Independence) -> bool:
    """Return whether a model that has not answered yet is known, or declared, to return one value for each row."""
    if mlmodel.is_sklearn and mlmodel.method in ROW_METHODS:
        return True
    return not independence.unknown or independence.declared is True


def answer_kind(engine: Engine, rows: Sequence[Row], outputs: Outputs, batch: Batch | None = None) -> tuple[bool, str]:
    """Return whether an answer belongs to the request as a whole, and its form (empty for an array or a list).

    The model is also called with a single row and with other numbers of rows: one number can agree by chance.

    Args:
        engine: the model.
        rows: rows that it accepts.
        outputs: its answer to them, or to `batch`.
        batch: which it answered, if that has more rows, parameters or absent columns.
    """
    answers = [outputs]
    for sample in (list(rows[:1]), list(rows[:1]) * _REPEATED):
        if len(sample) == (len(rows) if batch is None else batch.rows):
            continue
        try:
            answers.append(engine.predict(_like(batch, sample)))
        except Exception:  # noqa: BLE001, S112 - it may refuse another number of rows; those that it accepts decide
            continue
    by_request = any(isinstance(each, Answer) and each.rows is None for each in answers)
    forms = [each.form if isinstance(each, Answer) else "" for each in answers]
    # An array for each row looks like targets if there are as many rows as arrays, but only then.
    return by_request, next((form for form in forms if form != "targets"), "targets")


def _like(batch: Batch | None, sample: list[Row]) -> Batch:
    if batch is None:
        return Batch(len(sample), sample)
    return replace(batch, rows=len(sample), values=sample, event_times=None, index=None)
