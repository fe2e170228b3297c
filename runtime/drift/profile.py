"""Profiles of data: a small summary of each column, stored with a model as its reference.

The JSON form, artifact `tidemill/reference_profile.json`:

    {"schema": 1, "rows": 78146, "columns": {
      "temp":   {"kind": "numeric", "count": 78070, "nulls": 76, "mean": 38.2, "std": 9.1, "min": 10.9, "max": 64.4,
                 "quantiles": {"0.01": 15.9, ..., "0.99": 60.1}},
      "origin": {"kind": "categorical", "count": 78146, "nulls": 0, "distinct": 3,
                 "categories": {"EWR": 28340, "JFK": 26020, "LGA": 23786}}}}

`count` is the number of values and `nulls` the number of nulls; NaN and infinite values are nulls. `std` divides by
`count`. Numbers are numeric. All other values, also booleans, are categories by their text; a profile lists the most
frequent CATEGORY_LIMIT of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from ..common.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SCHEMA = 1
CATEGORY_LIMIT = 1000
_QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Numeric:
    """A column of numbers; the statistics are None if `count` is 0."""

    count: int
    nulls: int
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None
    quantiles: Mapping[str, float] = field(default_factory=dict[str, float])
    kind: Literal["numeric"] = "numeric"


@dataclass(frozen=True)
class Categorical:
    """A column of other values; `categories` maps the text of a value to its number of rows."""

    count: int
    nulls: int
    distinct: int
    categories: Mapping[str, int] = field(default_factory=dict[str, int])
    kind: Literal["categorical"] = "categorical"


ColumnProfile: TypeAlias = Numeric | Categorical


@dataclass(frozen=True)
class Profile:
    """The summary of a table.

    >>> import pandas as pd
    >>> profile = Profile.of(pd.DataFrame({"x": [1.0, 3.0, None], "c": ["a", "b", "a"]}))
    >>> profile.columns["x"].mean, profile.columns["x"].nulls, profile.columns["c"].categories
    (2.0, 1, {'a': 2, 'b': 1})
    >>> Profile.from_json(profile.to_json()) == profile
    True
    """

    rows: int
    columns: Mapping[str, ColumnProfile]

    @classmethod
    def of(cls, frame: pd.DataFrame | pa.Table) -> Profile:
        """Return the profile of `frame`."""
        import pyarrow as pa

        table = frame.to_pandas() if isinstance(frame, pa.Table) else frame
        return cls(len(table), {str(name): _column(cast("pd.Series", table[name])) for name in table.columns})

    def to_json(self) -> str:
        """Return the profile as JSON text."""
        columns = {name: asdict(column) for name, column in self.columns.items()}
        return json.dumps({"schema": SCHEMA, "rows": self.rows, "columns": columns}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Profile:
        """Read a profile from JSON text.

        Raises:
            ConfigError: the text is not a profile, or its schema number is unknown.
        """
        try:
            raw: dict[str, Any] = json.loads(text)
            if raw["schema"] != SCHEMA:
                raise ConfigError(
                    f"only schema {SCHEMA} is supported", field="schema", value=raw["schema"], hint="update tidemill"
                )
            kinds = {"numeric": Numeric, "categorical": Categorical}
            columns: dict[str, ColumnProfile] = {
                name: kinds[column["kind"]](**column) for name, column in raw["columns"].items()
            }
            return cls(int(raw["rows"]), columns)
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"not a profile ({error!r})", field="profile") from None


def _column(series: pd.Series) -> ColumnProfile:
    import pandas as pd

    if pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series):
        return _numeric(series)
    present = series.dropna()
    counts = present.astype(str).value_counts()
    kept = {str(value): int(count) for value, count in counts.head(CATEGORY_LIMIT).items()}
    return Categorical(len(present), len(series) - len(present), len(counts), kept)


def _numeric(series: pd.Series) -> Numeric:
    import numpy as np

    values = series.to_numpy(dtype="float64", na_value=math.nan)
    present = values[np.isfinite(values)]
    nulls = len(values) - len(present)
    if not len(present):
        return Numeric(0, nulls)
    return Numeric(
        len(present),
        nulls,
        float(present.mean()),
        float(present.std()),
        float(present.min()),
        float(present.max()),
        {f"{q:g}": float(value) for q, value in zip(_QUANTILES, np.quantile(present, _QUANTILES), strict=True)},
    )
