"""Finds NaN and infinities in outputs of every form. JSON cannot represent them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from ..engines.outputs import Answer
from .batch import Outputs


def non_finite_rows(outputs: Outputs) -> list[int]:
    """Return the rows of `outputs` with a NaN or an infinity; for an answer of the whole request, [0] if it has one.

    NaN beside texts is not meant: it is how pandas writes a missing text.
    """
    return _non_finite_rows(outputs, _is_finite)


def _non_finite_rows(outputs: Outputs, check: Callable[[Any], bool]) -> list[int]:
    if isinstance(outputs, Answer):
        parts = outputs.parts[1:] if outputs.form == "score" else outputs.parts
        if outputs.rows is None or (outputs.form == "value" and not isinstance(parts[0], np.ndarray)):
            return [0] if not all(map(check, parts)) else []
        return sorted({row for part in parts for row in _rows(part, check)})
    return _rows(outputs, check)


def is_finite(outputs: Outputs) -> bool:
    """Return whether `outputs` has no NaN, not even for a missing text, and no infinity."""
    if isinstance(outputs, np.ndarray):
        return outputs.dtype.kind != "f" or bool(np.isfinite(outputs).all())
    return not _non_finite_rows(outputs, _has_no_nan)


def _rows(part: Any, check: Callable[[Any], bool]) -> list[int]:
    if isinstance(part, np.ndarray):
        if part.dtype.kind != "f" or not part.size:
            return []
        return np.flatnonzero(~np.isfinite(part).reshape(len(part), -1).all(axis=1)).tolist()
    found = [row for row, value in enumerate(part) if not check(value)]
    if found and check is _is_finite and _has_text(part):
        return [row for row in found if not _is_nan(part[row])]
    return found


def _has_text(values: list[Any]) -> bool:
    return any(type(value) is str for value in values)


def _is_nan(value: Any) -> bool:
    return type(value) is float and math.isnan(value)


def _is_finite(value: Any) -> bool:
    """Return whether a JSON value has no infinity, and no NaN but missing texts."""
    if isinstance(value, list):
        return not _rows(value, _is_finite)
    if isinstance(value, dict):
        return all(map(_is_finite, cast("dict[str, Any]", value).values()))
    return _has_no_nan(value)


def _has_no_nan(value: Any) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    if isinstance(value, list):
        return all(map(_has_no_nan, cast("list[Any]", value)))
    if isinstance(value, dict):
        return all(map(_has_no_nan, cast("dict[str, Any]", value).values()))
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
    return True
