"""Profiles of awkward columns."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tidemill.runtime.common.errors import ConfigError
from tidemill.runtime.drift.profile import CATEGORY_LIMIT, Categorical, Numeric, Profile


def test_awkward_columns_are_profiled_and_survive_json() -> None:
    frame = pd.DataFrame(
        {
            "nothing": [None] * 4,
            "nan": [np.nan] * 4,
            "infinite": [1.0, np.inf, -np.inf, 3.0],
            "flags": [True, False, True, True],
            "nullable": pd.array([1, None, 3, 5], dtype="Int64"),
            "small": np.array([0, 255, 0, 255], dtype="uint8"),
            "text": ["a", None, "a", ""],
        }
    )
    profile = Profile.of(frame)
    columns = profile.columns
    assert columns["nothing"] == Categorical(0, 4, 0)
    assert columns["nan"] == Numeric(0, 4)
    assert isinstance(columns["infinite"], Numeric)
    assert (columns["infinite"].mean, columns["infinite"].nulls) == (2.0, 2)
    assert columns["flags"] == Categorical(4, 0, 2, {"True": 3, "False": 1})
    assert isinstance(columns["nullable"], Numeric)
    assert (columns["nullable"].mean, columns["nullable"].count, columns["nullable"].nulls) == (3.0, 3, 1)
    assert isinstance(columns["small"], Numeric)
    assert columns["small"].mean == 127.5
    assert columns["text"] == Categorical(3, 1, 2, {"a": 2, "": 1})
    assert Profile.from_json(profile.to_json()) == profile


def test_only_the_most_frequent_categories_are_listed() -> None:
    values = [f"id-{number}" for number in range(CATEGORY_LIMIT + 500)] + ["often"] * 3
    column = Profile.of(pa.table({"c": values})).columns["c"]
    assert isinstance(column, Categorical)
    assert (column.distinct, len(column.categories)) == (CATEGORY_LIMIT + 501, CATEGORY_LIMIT)
    assert column.categories["often"] == 3


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"schema": 2, "rows": 0, "columns": {}})])
def test_what_is_no_profile_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Profile.from_json(text)
