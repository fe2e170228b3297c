"""Finds out whether a model answers by row or for the request as a whole. Only used in preparation."""

from __future__ import annotations

from collections.abc import Sequence

from ..inference.batch import Batch, Engine, Outputs
from .outputs import Answer
from .sample_rows import Row

_REPEATED = 3


def answer_kind(engine: Engine, rows: Sequence[Row], outputs: Outputs) -> tuple[bool, str]:
    """Return whether an answer belongs to the request as a whole, and its form (empty for an array or a list).

    The model is also called with a single row and with other numbers of rows: one number can agree by chance.

    Args:
        engine: the model.
        rows: rows that it accepts.
        outputs: its answer to them.
    """
    answers = [outputs]
    targets = outputs if isinstance(outputs, Answer) and outputs.form == "targets" else None
    samples = [list(rows[:1]), list(rows[:1]) * _REPEATED]
    if targets is not None:
        samples.append(list(rows[:1]) * (len(targets.parts) + 1))
    for sample in samples:
        if len(sample) == len(rows) and targets is None:
            continue
        try:
            answers.append(engine.predict(Batch(len(sample), sample)))
        except Exception:  # noqa: BLE001, S112 - it may refuse another number of rows; those that it accepts decide
            continue
    by_request = any(isinstance(each, Answer) and each.rows is None for each in answers)
    # Arrays for each row only look like targets if there are as many rows as arrays, so the last answer decides.
    last = answers[-1]
    return by_request, last.form if isinstance(last, Answer) else ""
