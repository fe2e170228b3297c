"""Drift scores against scipy as the oracle, and the properties which any distance must have."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.spatial.distance import jensenshannon as scipy_js
from scipy.stats import wasserstein_distance as scipy_w1
from tidemill.runtime.drift import jensen_shannon, score, wasserstein

floats = npst.arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6, allow_nan=False))
tables = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 50)).filter(lambda counts: sum(counts.values()) > 0)


@settings(max_examples=200, deadline=None)
@given(floats, floats, st.randoms(use_true_random=False))
def test_wasserstein_is_scipys_and_knows_no_order(left, right, random) -> None:
    expected = scipy_w1(left, right) / max(np.std(left), 0.001)
    shuffled = list(right)
    random.shuffle(shuffled)
    assert wasserstein(left, right) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert wasserstein(left, np.array(shuffled)) == wasserstein(left, right)
    assert wasserstein(left, left) == 0.0


def test_wasserstein_is_exact_on_heavy_tails() -> None:
    random = np.random.default_rng(7)
    left, right = random.pareto(1.1, 1000), random.pareto(1.1, 20_000)
    assert wasserstein(left, right) == pytest.approx(scipy_w1(left, right) / np.std(left), rel=1e-9)


@settings(max_examples=200, deadline=None)
@given(tables, tables)
def test_jensen_shannon_is_scipys_and_symmetric(left, right) -> None:
    p, q = ([counts.get(name, 0) for name in "abcdef"] for counts in (left, right))
    assert jensen_shannon(left, right) == pytest.approx(scipy_js(p, q), abs=1e-7)
    assert jensen_shannon(left, right) == pytest.approx(jensen_shannon(right, left), abs=1e-12)
    assert jensen_shannon(left, left) == 0.0


def test_identical_and_shuffled_frames_do_not_drift() -> None:
    random = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "number": random.normal(size=500),
            "gaps": np.where(random.random(500) < 0.3, np.nan, 1.0),
            "text": random.choice(["a", "b", None], 500),
            "few": random.integers(0, 4, 500),
            "flag": random.random(500) < 0.5,
            "time": pd.Timestamp("2013-01-01", tz="UTC") + pd.to_timedelta(random.integers(0, 10**6, 500), unit="s"),
        }
    )
    result = score(frame, frame.sample(frac=1, random_state=3))
    assert result.share == 0.0
    assert {test.value for feature in result.features for test in feature.tests} == {0.0}
    assert [feature.test for feature in result.features] == [
        "wasserstein", "wasserstein", "jensenshannon", "jensenshannon", "jensenshannon", "wasserstein",
    ]  # fmt: skip


def test_a_shift_is_found_where_it_is() -> None:
    random = np.random.default_rng(2)
    reference = pd.DataFrame({"moved": random.normal(size=2000), "still": random.normal(size=2000)})
    current = pd.DataFrame({"still": random.normal(size=2000), "moved": random.normal(1.0, 1.0, size=2000)})
    result = score(reference, current)
    assert result.drifted == ("moved",)
    assert result.features[0].score == pytest.approx(1.0, abs=0.1)
    assert result.share == 0.5


@pytest.mark.parametrize("kind", ["float64", "string", "Int64", "datetime64[us, UTC]"])
def test_vanished_values_are_drift_though_those_left_look_the_same(kind: str) -> None:
    values = pd.Series([1, 2, 3, 4] * 50)
    reference = values.astype(kind) if kind != "string" else values.astype(str).astype("string")
    current = reference.where(pd.Series(range(len(values))) >= 180)
    (feature,) = score(pd.DataFrame({"x": reference}), pd.DataFrame({"x": current})).features
    by_name = {test.test: test for test in feature.tests}
    assert by_name["nulls"].value == pytest.approx(0.9)
    assert not next(test for name, test in by_name.items() if name != "nulls").drifted
    assert feature.drifted


@pytest.mark.parametrize("empty", [np.nan, None, np.inf])
def test_columns_without_any_value_raise_nothing(empty: float | None) -> None:
    nothing = pd.DataFrame({"x": [empty] * 5, "y": [1.0, 2.0, 3.0, 4.0, 5.0]})
    full = nothing.assign(x=[1.5, 2.5, 3.5, 4.5, 5.5])
    assert score(nothing, nothing).drifted == ()
    assert score(full, nothing).drifted == ("x",)
    assert score(nothing, full).drifted == ("x",)
    assert score(full, nothing.head(0)).drifted == ()


def test_a_column_which_is_gone_or_changed_its_type_is_drift() -> None:
    reference = pd.DataFrame({"x": np.linspace(0, 1, 50), "y": ["a"] * 50})
    assert score(reference, reference[["y"]]).drifted == ("x",)
    assert score(reference, reference.assign(x="far")).drifted == ("x",)
    integers = pd.DataFrame({"few": [0, 1, 2, 3]})
    with_null = pd.DataFrame({"few": [0.0, 1.0, 2.0, 3.0] * 100 + [np.nan]})
    assert score(integers, with_null).drifted == (), "a null makes integers float, which is no other category"


def test_the_result_is_plain_json() -> None:
    import json

    frame = pd.DataFrame({"x": [1.0, 2.0], "y": ["a", "b"]})
    again = json.loads(json.dumps(score(frame, frame, threshold=0.2).to_dict()))
    assert again["features"][0]["tests"][0] == {
        "test": "wasserstein", "value": 0.0, "threshold": 0.2, "drifted": False,
    }  # fmt: skip
