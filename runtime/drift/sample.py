"""One feature of a window, in the form that the drift tests compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Kind: TypeAlias = Literal["numeric", "categorical"]

_FEW_VALUES = 10
"""Integers with at most this many different values in both samples together are categories."""


@dataclass(frozen=True)
class Sample:
    """The values of one feature.

    Attributes:
        rows: number of rows.
        numbers: the finite values of a numeric feature; empty for a categorical one.
        counts: category -> number of rows of a categorical feature; empty for a numeric one.
    """

    rows: int
    numbers: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    counts: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def present(self) -> int:
        """Number of rows with a value."""
        return self.numbers.size or sum(self.counts.values())

    @property
    def null_share(self) -> float:
        """Share of the rows without a value, 0 to 1; 0 without rows."""
        return 1 - self.present / self.rows if self.rows else 0.0


def samples_of(reference: pd.DataFrame, current: pd.DataFrame, name: str) -> tuple[Kind, Sample, Sample]:
    """Return the kind of the feature `name` and its two samples; all values of a missing column are null."""
    columns = _column(reference, name), _column(current, name)
    if _is_numeric(*columns):
        numbers = [_numbers(column) for column in columns]
        left, right = (Sample(each.size, numbers=each[np.isfinite(each)]) for each in numbers)
        return "numeric", left, right
    left, right = (Sample(len(column), counts=_categories(column)) for column in columns)
    return "categorical", left, right


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    if name in frame.columns:
        return cast("pd.Series", frame[name])
    return pd.Series(np.full(len(frame), np.nan), dtype="float64")


def _is_numeric(reference: pd.Series, current: pd.Series) -> bool:
    """Tell by the type of the reference, or of the current column if the reference is all null."""
    deciding = reference if reference.notna().any() else current
    dtype = deciding.dtype
    if pd.api.types.is_bool_dtype(dtype):
        return False
    if pd.api.types.is_integer_dtype(dtype):
        joined = pd.concat([pd.Series(_numbers(column)).dropna() for column in (reference, current)])
        return joined.nunique() > _FEW_VALUES
    return bool(
        pd.api.types.is_float_dtype(dtype)
        or pd.api.types.is_datetime64_any_dtype(dtype)
        or pd.api.types.is_timedelta64_dtype(dtype)
    )


def _numbers(column: pd.Series) -> NDArray[np.float64]:
    """Return the values as floats: times as seconds, NaN for values that are not numbers."""
    if pd.api.types.is_datetime64_any_dtype(column.dtype) or pd.api.types.is_timedelta64_dtype(column.dtype):
        plain = column.dt.tz_convert("UTC").dt.tz_localize(None) if getattr(column.dtype, "tz", None) else column
        kind = "datetime64[ns]" if pd.api.types.is_datetime64_any_dtype(column.dtype) else "timedelta64[ns]"
        ticks = plain.to_numpy(dtype=kind)
        return np.where(np.isnat(ticks), np.nan, ticks.astype("int64") / 1e9)
    converted = pd.to_numeric(column, errors="coerce")
    return cast("Any", converted).to_numpy(dtype="float64", na_value=np.nan)


def _categories(column: pd.Series) -> dict[str, int]:
    """Count the values by their text; 1 and 1.0 are the same category, because a null turns integers into floats."""
    counts: dict[str, int] = {}
    for value, count in column.dropna().value_counts().items():
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        counts[str(value)] = counts.get(str(value), 0) + int(count)
    return {name: count for name, count in counts.items() if count}
