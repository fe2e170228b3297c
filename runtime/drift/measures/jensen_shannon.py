"""The Jensen-Shannon distance of categories."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .base import Measure


def jensen_shannon(reference: Mapping[str, int], current: Mapping[str, int]) -> float:
    """Return the Jensen-Shannon distance of two tables of counts: 0 for equal shares, sqrt(ln 2) = .833 for disjoint.

    sqrt((KL(p || m) + KL(q || m)) / 2) with m = (p + q) / 2 and natural logarithms; 0 ln 0 is 0. Source: Endres,
    Schindelin, "A new metric for probability distributions", IEEE Transactions on Information Theory 49 (2003);
    as in scipy.spatial.distance.jensenshannon.

    Args:
        reference: category -> count, with a positive sum.
        current: the same.

    >>> round(jensen_shannon({"a": 1}, {"b": 7}), 3)
    0.833
    """
    names = sorted({*reference, *current})
    p, q = (np.array([counts.get(name, 0) for name in names], dtype=np.float64) for counts in (reference, current))
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    # Rounding may leave a tiny negative sum for equal shares.
    return float(np.sqrt(max(0.0, (_kl(p, middle) + _kl(q, middle)) / 2)))


def _kl(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    positive = p > 0
    return float(np.sum(p[positive] * np.log(p[positive] / q[positive])))


MEASURE = Measure(
    "jensenshannon", ["categorical"], lambda reference, current: jensen_shannon(reference.counts, current.counts)
)
