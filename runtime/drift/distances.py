"""The distances by which two samples of one feature are compared."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["STD_FLOOR", "jensen_shannon", "null_change", "wasserstein"]

STD_FLOOR = 0.001
"""Least standard deviation by which `wasserstein` divides, so that a constant reference gives a number."""


def wasserstein(reference: NDArray[np.float64], current: NDArray[np.float64]) -> float:
    """Return the first Wasserstein distance in units of the reference's standard deviation.

    W1 = integral over x of |F_ref(x) - F_cur(x)|, divided by max(std(ref, ddof=0), 0.001). The two empirical
    distribution functions are steps, so one sort of the joined values gives the integral exactly. Source: Ramdas,
    Garcia, Cuturi, "On Wasserstein two-sample testing", 2015, section 2.3 (as in scipy.stats.wasserstein_distance);
    the normalisation and its floor are those of Evidently's "Wasserstein distance (normed)".

    Args:
        reference: finite values in any order, at least one.
        current: the same.

    >>> wasserstein(np.array([0.0, 2.0]), np.array([3.0, 5.0]))
    3.0
    """
    reference, current = np.sort(reference), np.sort(current)
    values = np.concatenate([reference, current])
    values.sort(kind="stable")
    below_reference = np.searchsorted(reference, values[:-1], side="right") / reference.size
    below_current = np.searchsorted(current, values[:-1], side="right") / current.size
    distance = np.sum(np.abs(below_reference - below_current) * np.diff(values))
    return float(distance / max(float(np.std(reference)), STD_FLOOR))


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
    some = p > 0
    return float(np.sum(p[some] * np.log(p[some] / q[some])))


def null_change(reference_share: float, current_share: float) -> float:
    """Return by how much the share of nulls changed, 0 to 1: `|current - reference|`.

    This test is ours: the distances above see only the values that are there.
    """
    return abs(current_share - reference_share)
