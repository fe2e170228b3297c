"""The Wasserstein distance of numbers, in standard deviations of the reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .base import Measure

_STD_FLOOR = 0.001
"""Smallest standard deviation to divide by, so that a constant reference gives a number."""


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
    return float(distance / max(float(np.std(reference)), _STD_FLOOR))


MEASURE = Measure(
    "wasserstein", ["numeric"], lambda reference, current: wasserstein(reference.numbers, current.numbers)
)
