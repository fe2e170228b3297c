"""Finds NaN and infinities in outputs of every form. JSON cannot represent them."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np

from ..engines.outputs import Answer
from .batch import Outputs


def non_finite_rows(outputs: Outputs) -> list[int]:
    """Return the rows of `outputs` with a NaN or an infinity; for an answer of the whole request, [0] if it has one."""
    if isinstance(outputs, Answer):
        parts = outputs.parts[1:] if outputs.form == "score" else outputs.parts
        if outputs.rows is None or (outputs.form == "value" and not isinstance(parts[0], np.ndarray)):
            return [0] if not all(map(_is_finite, parts)) else []
        return sorted({row for part in parts for row in _rows(part)})
    return _rows(outputs)


def is_finite(outputs: Outputs) -> bool:
    """Return whether `outputs` has no NaN and no infinity."""
    if isinstance(outputs, np.ndarray):
        return outputs.dtype.kind != "f" or bool(np.isfinite(outputs).all())
    return not non_finite_rows(outputs)


def _rows(part: Any) -> list[int]:
    if isinstance(part, np.ndarray):
        if part.dtype.kind != "f" or not part.size:
            return []
        return np.flatnonzero(~np.isfinite(part).reshape(len(part), -1).all(axis=1)).tolist()
    return [row for row, value in enumerate(part) if not _is_finite(value)]


def _is_finite(value: Any) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    if isinstance(value, list):
        return all(map(_is_finite, cast("list[Any]", value)))
    if isinstance(value, dict):
        return all(map(_is_finite, cast("dict[str, Any]", value).values()))
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
    return True
