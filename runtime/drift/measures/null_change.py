"""The change of the share of nulls."""

from __future__ import annotations

from .base import Measure


def null_change(reference_share: float, current_share: float) -> float:
    """Return by how much the share of nulls changed, 0 to 1: `|current - reference|`.

    This test is ours: the distances of values ignore nulls.
    """
    return abs(current_share - reference_share)


MEASURE = Measure(
    "nulls",
    ["numeric", "categorical"],
    lambda reference, current: null_change(reference.null_share, current.null_share),
    needs_values=False,
)
