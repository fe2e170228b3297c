"""Data drift: each feature of a window compared to the model's reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .distances import jensen_shannon, null_change, wasserstein

__all__ = ["DriftResult", "FeatureDrift", "Test", "TestResult", "score"]

Test: TypeAlias = Literal["wasserstein", "jensenshannon", "nulls"]

FEW_VALUES = 10
"""Integers with at most so many different values in both samples together are categories."""


@dataclass(frozen=True)
class TestResult:
    """One test of one feature.

    Attributes:
        test: its name.
        value: the distance; see `distances` for the units.
        threshold: from which on it is drift.
    """

    # Not a class of tests, whatever pytest thinks of its name.
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
    """What the tests say of one feature.

    Attributes:
        name: the feature.
        kind: `numeric` or `categorical`.
        tests: the distance of the values, where both samples have any, and the change of the null share.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    tests: tuple[TestResult, ...]

    @property
    def drifted(self) -> bool:
        """Whether any test says so."""
        return any(test.drifted for test in self.tests)

    @property
    def test(self) -> Test:
        """The test which comes first: of the values, else of the nulls."""
        return self.tests[0].test

    @property
    def score(self) -> float:
        """The distance of `test`."""
        return self.tests[0].value


@dataclass(frozen=True)
class DriftResult:
    """What the tests say of a window.

    Attributes:
        features: one each feature, in the reference's order.
        reference_rows, current_rows: what was compared.
    """

    features: tuple[FeatureDrift, ...]
    reference_rows: int
    current_rows: int

    @property
    def share(self) -> float:
        """Share of the features which drifted, 0 to 1; 0 without features."""
        return sum(feature.drifted for feature in self.features) / len(self.features) if self.features else 0.0

    @property
    def drifted(self) -> tuple[str, ...]:
        """Names of the features which drifted."""
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
) -> DriftResult:
    """Compare each feature of `current` to `reference`.

    Numbers and times: normalised Wasserstein distance. Text, booleans, and integers with at most 10 different values:
    Jensen-Shannon distance. Every feature besides: the change of its share of nulls (NaN and infinite count as null,
    and so does what is no number where the reference has numbers). A feature which `current` lacks is all null there.
    A distance of values needs a value on both sides; without, the nulls alone decide, and nothing raises.

    Small samples differ by chance: 200 rows of one normal distribution against 1,000 have a Wasserstein distance of
    about 0.08. That is what the window's least number of rows and the share of drifted features are for.

    Args:
        reference: the rows the model was trained on, or a sample of them.
        current: the rows of the window.
        features: names of the columns to compare; all of the reference's by default.
        threshold: distance of values from which on a feature has drifted.
        null_threshold: the same for the change of the null share.
    """
    names = list(reference.columns) if features is None else list(features)
    found = [
        _feature(name, _column(reference, name), _column(current, name), threshold, null_threshold)
        for name in names
        if name in reference.columns
    ]
    return DriftResult(tuple(found), len(reference), len(current))


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    if name in frame.columns:
        return cast("pd.Series", frame[name])
    return pd.Series(np.full(len(frame), np.nan), dtype="float64")


def _feature(
    name: str, reference: pd.Series, current: pd.Series, threshold: float, null_threshold: float
) -> FeatureDrift:
    numeric = _is_numeric(reference, current)
    tests: list[TestResult] = []
    if numeric:
        left, right = _numbers(reference), _numbers(current)
        left, right = left[np.isfinite(left)], right[np.isfinite(right)]
        sizes = left.size, right.size
        if left.size and right.size:
            tests.append(TestResult("wasserstein", wasserstein(left, right), threshold))
    else:
        counts = _categories(reference), _categories(current)
        sizes = sum(counts[0].values()), sum(counts[1].values())
        if all(sizes):
            tests.append(TestResult("jensenshannon", jensen_shannon(*counts), threshold))
    shares = _null_share(reference, sizes[0]), _null_share(current, sizes[1])
    tests.append(TestResult("nulls", null_change(*shares), null_threshold))
    return FeatureDrift(name, "numeric" if numeric else "categorical", tuple(tests))


def _null_share(column: pd.Series, present: int) -> float:
    return 1 - present / len(column) if len(column) else 0.0


def _is_numeric(reference: pd.Series, current: pd.Series) -> bool:
    """Tell by the reference's type; where it holds nothing, by the current one's."""
    deciding = reference if reference.notna().any() else current
    dtype = deciding.dtype
    if pd.api.types.is_bool_dtype(dtype):
        return False
    if pd.api.types.is_integer_dtype(dtype):
        together = pd.concat([_series(column) for column in (reference, current)])
        return together.nunique() > FEW_VALUES
    return bool(
        pd.api.types.is_float_dtype(dtype)
        or pd.api.types.is_datetime64_any_dtype(dtype)
        or pd.api.types.is_timedelta64_dtype(dtype)
    )


def _series(column: pd.Series) -> pd.Series:
    return pd.Series(_numbers(column)).dropna()


def _numbers(column: pd.Series) -> NDArray[np.float64]:
    """Return the values as floats, times as seconds, NaN for what is none."""
    if pd.api.types.is_datetime64_any_dtype(column.dtype) or pd.api.types.is_timedelta64_dtype(column.dtype):
        plain = column.dt.tz_convert("UTC").dt.tz_localize(None) if getattr(column.dtype, "tz", None) else column
        kind = "datetime64[ns]" if pd.api.types.is_datetime64_any_dtype(column.dtype) else "timedelta64[ns]"
        ticks = plain.to_numpy(dtype=kind)
        return np.where(np.isnat(ticks), np.nan, ticks.astype("int64") / 1e9)
    converted = pd.to_numeric(column, errors="coerce")
    return cast("Any", converted).to_numpy(dtype="float64", na_value=np.nan)


def _categories(column: pd.Series) -> dict[str, int]:
    """Count the values by their text; 1 and 1.0 are the same, since a null makes integers float."""
    counts: dict[str, int] = {}
    for value, count in column.dropna().value_counts().items():
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        counts[str(value)] = counts.get(str(value), 0) + int(count)
    return {name: count for name, count in counts.items() if count}
