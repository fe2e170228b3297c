"""What a drift test is."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from ..sample import Kind, Sample


@dataclass(frozen=True)
class Measure:
    """A drift test: a distance between two samples of one feature.

    Attributes:
        name: of the test, in results and metrics.
        kinds: the kinds of features that it compares.
        distance: takes the reference and the current sample; returns 0 or more, 0 for equal samples.
        needs_values: whether both samples must hold at least one value that is not null.
    """

    name: str
    kinds: Collection[Kind]
    distance: Callable[[Sample, Sample], float]
    needs_values: bool = True
