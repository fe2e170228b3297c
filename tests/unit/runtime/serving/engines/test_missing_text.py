"""Null in a column of text reaches a model as what it was fitted with: None and NaN are two things to an encoder."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from tests.support.versions import both_forms, save_version, served, wanted

# `object`: with None; `str`: pandas' own text, with NaN.
KINDS: list[Any] = [object, "str"]


def rows_of(kind: Any) -> pd.DataFrame:
    random = np.random.default_rng(0)
    text = random.choice(["UA", "B6", "DL"], 400).astype(object)
    text[random.random(400) < 0.3] = None
    return pd.DataFrame({"carrier": pd.Series(text, dtype=kind), "hour": random.uniform(0, 24, 400)})


def ordinal() -> Any:
    return OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)


def imputing(kind: Any) -> Any:
    missing = None if kind is object else np.nan
    return make_pipeline(SimpleImputer(missing_values=missing, strategy="constant", fill_value="none"), ordinal())


@pytest.mark.parametrize("kind", KINDS, ids=["None", "NaN"])
@pytest.mark.parametrize("step", ["ordinal", "onehot", "imputer"])
@pytest.mark.parametrize("engines", [None, []], ids=["compiled", "itself"])
def test_null_is_what_the_model_was_fitted_with(
    tmp_path: Path, kind: Any, step: str, engines: list[str] | None
) -> None:
    frame = rows_of(kind)
    missing = frame["carrier"].isna()
    late = (missing ^ (frame["hour"] > 12)).astype(int)
    encoder = {"ordinal": ordinal(), "onehot": OneHotEncoder(handle_unknown="ignore"), "imputer": imputing(kind)}[step]
    columns = ColumnTransformer([("text", encoder, ["carrier"])], remainder="passthrough", sparse_threshold=0.0)
    pipeline = Pipeline([("columns", columns), ("trees", HistGradientBoostingClassifier(max_iter=10, random_state=0))])
    pipeline.fit(frame, late)
    right = pipeline.predict_proba(frame)[:, 1]
    assert np.abs(right[missing.to_numpy()] - right.mean()).max() > 0.1, "missing text must matter to this model"
    rows = [(None if gone else text, hour) for text, hour, gone in zip(*frame.to_numpy().T, missing, strict=True)]
    folder = save_version(tmp_path / "1", pipeline, frame, required=False)
    with warnings.catch_warnings(), served(folder, wanted(engines)) as model:
        warnings.simplefilter("ignore")
        assert (model.engine.name == "sklearn") is (engines == []), model.engine_note
        together, packed, single = both_forms(model, rows)
    np.testing.assert_allclose(np.asarray(together, dtype=float), right, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.asarray(packed, dtype=float), right, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.asarray(single, dtype=float), right[: len(single)], rtol=0, atol=1e-6)
