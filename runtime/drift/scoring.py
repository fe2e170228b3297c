"""Data drift: compares each feature of a window with the model's reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pandas as pd

from .measures.registry import find_measure
from .sample import Kind, samples_of

Test: TypeAlias = str
"""Name of a drift test in the registry."""

DEFAULT_TESTS: Sequence[Test] = ("wasserstein", "jensenshannon")
_NULLS = "nulls"


@dataclass(frozen=True)
class TestResult:
    """The result of one test of one feature.

    Attributes:
        test: name of the test.
        value: the distance; `measures` describes the units.
        threshold: the feature has drifted from this distance on.
    """

    # Keeps pytest from collecting it as a test class.
    __test__ = False

    test: Test
    value: float
    threshold: float

    @property
    def drifted(self) -> bool:
        """Whether the distance reaches the threshold."""
        return self.value >= self.threshold


@dataclass(frozen=True)
class FeatureDrift:
    """The test results of one feature.

    Attributes:
        name: the feature.
        kind: `numeric` or `categorical`.
        tests: the distances of the values, if both samples have any, and then the change of the share of nulls.
    """

    name: str
    kind: Kind
    tests: tuple[TestResult, ...]

    @property
    def drifted(self) -> bool:
        """Whether any test found drift."""
        return any(test.drifted for test in self.tests)

    @property
    def test(self) -> Test:
        """The first test: it compares the values, or the nulls if there are no values."""
        return self.tests[0].test

    @property
    def score(self) -> float:
        """The distance of the first test."""
        return self.tests[0].value


@dataclass(frozen=True)
class DriftResult:
    """The test results of a window.

    Attributes:
        features: one result for each feature, in the reference's order.
        reference_rows: number of rows of the reference.
        current_rows: number of rows of the window.
    """

    features: tuple[FeatureDrift, ...]
    reference_rows: int
    current_rows: int

    @property
    def share(self) -> float:
        """Share of the features that drifted, 0 to 1; 0 without features."""
        return sum(feature.drifted for feature in self.features) / len(self.features) if self.features else 0.0

    @property
    def drifted(self) -> tuple[str, ...]:
        """Names of the features that drifted."""
        return tuple(feature.name for feature in self.features if feature.drifted)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        return {
            "share": self.share,
            "reference_rows": self.reference_rows,
            "current_rows": self.current_rows,
            "features": [
                {
                    "name": feature.name,
                    "kind": feature.kind,
                    "drifted": feature.drifted,
                    "tests": [
                        {"test": test.test, "value": test.value, "threshold": test.threshold, "drifted": test.drifted}
                        for test in feature.tests
                    ],
                }
                for feature in self.features
            ],
        }


def score(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    *,
    features: Sequence[str] | None = None,
    threshold: float = 0.1,
    null_threshold: float = 0.1,
    tests: Sequence[Test] = DEFAULT_TESTS,
) -> DriftResult:
    """Compare each feature of `current` with `reference`.

    By default, numbers and times are compared by the normalised Wasserstein distance. Text, booleans, and integers with
    at most 10 different values are compared by the Jensen-Shannon distance. Every feature is also compared by its share
    of nulls. NaN and infinite values count as null. So does a value that is not a number where the reference has
    numbers. A feature that `current` lacks is all null there. A distance of values needs a value on both sides; if a
    side has none, only the share of nulls decides.

    Small samples differ by chance: 200 rows of one normal distribution against 1,000 have a Wasserstein distance of
    about 0.08. Therefore require a minimum number of rows in a window, and look at the share of drifted features.

    Args:
        reference: the rows that the model was trained on, or a sample of them.
        current: the rows of the window.
        features: names of the columns to compare; by default all columns of the reference.
        threshold: a feature has drifted from this distance of its values on.
        null_threshold: a feature has drifted from this change of its share of nulls on.
        tests: names of the tests of values; each runs on the features of its kinds.

    Raises:
        ConfigError: a test is not in the registry.
    """
    names = list(reference.columns) if features is None else list(features)
    measures = [find_measure(name) for name in (*tests, _NULLS)]
    found: list[FeatureDrift] = []
    for name in names:
        if name not in reference.columns:
            continue
        kind, before, now = samples_of(reference, current, name)
        both = before.present > 0 and now.present > 0
        results = tuple(
            TestResult(
                measure.name, measure.distance(before, now), threshold if measure.needs_values else null_threshold
            )
            for measure in measures
            if kind in measure.kinds and (both or not measure.needs_values)
        )
        found.append(FeatureDrift(name, kind, results))
    return DriftResult(tuple(found), len(reference), len(current))
