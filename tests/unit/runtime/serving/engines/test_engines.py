"""What compiled models answer is what scikit-learn answers, or they do not serve."""

from __future__ import annotations

import math
import shutil
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from tidemill.runtime.serving.engines import kernels
from tidemill.runtime.serving.engines.compilation import thresholds
from tidemill.runtime.serving.engines.engine_selection import difference
from tidemill.runtime.serving.engines.estimators import Recipe
from tidemill.runtime.serving.inference.batch import Batch
from tidemill.runtime.serving.versions.model import ServedModel
from tidemill.stacks.flights import departures

from tests.support.versions import TRUSTED, both_forms, save_version, served, wanted

CARRIERS = ["UA", "B6", "DL", "AA"]


def numbers(rows: int = 300, columns: int = 4, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame({f"x{index}": random.normal(size=rows) for index in range(columns)})


def mixed(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "carrier": random.choice(CARRIERS, rows),
            "distance": random.uniform(100, 2500, rows),
            "hour": random.integers(0, 24, rows).astype(float),
            "origin": random.choice(["JFK", "LGA"], rows),
        }
    )


def truth(frame: pd.DataFrame, classes: int = 2) -> Any:
    first = frame.iloc[:, 1].to_numpy(dtype=float)
    second = frame.iloc[:, 2].to_numpy(dtype=float)
    score = first / np.abs(first).max() + second / np.abs(second).max()
    return pd.qcut(score, classes, labels=False).astype(int)


def answer(model: Any, method: str, frame: pd.DataFrame) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = getattr(model, method)(frame)
    return given[:, 1] if method == "predict_proba" and given.shape[1] == 2 else given


def tuples(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    rows = frame.astype(object).where(frame.notna(), None)
    return [tuple(row) for row in rows.itertuples(index=False)]


def assert_same(model: ServedModel, original: Any, method: str, frame: pd.DataFrame) -> None:
    expected = answer(original, method, frame)
    whole, packed, single = both_forms(model, tuples(frame))
    for mine in (whole, packed):
        assert difference(np.asarray(mine), np.asarray(expected)) <= 1e-6 or list(mine) == list(expected)
    assert np.array_equal(np.asarray(single), np.asarray(whole)[: len(single)])


NAMES = np.array(["early", "late"])


@pytest.mark.parametrize(
    ("estimator", "method", "classes", "engine"),
    [
        (HistGradientBoostingClassifier(max_iter=5), "predict_proba", 2, "tl2cgen"),
        (HistGradientBoostingClassifier(max_iter=5), "predict_proba", 3, "tl2cgen"),
        (HistGradientBoostingClassifier(max_iter=5), "predict", 2, "tl2cgen"),
        (HistGradientBoostingRegressor(max_iter=5), "predict", 9, "tl2cgen"),
        (RandomForestClassifier(7, max_depth=5), "predict_proba", 2, "tl2cgen"),
        (RandomForestClassifier(6, max_depth=5), "predict", 3, "tl2cgen"),
        (RandomForestRegressor(7, max_depth=5), "predict", 9, "tl2cgen"),
        (ExtraTreesClassifier(7, max_depth=5), "predict_proba", 3, "tl2cgen"),
        (GradientBoostingClassifier(n_estimators=5), "predict_proba", 2, "tl2cgen"),
        (GradientBoostingClassifier(n_estimators=5), "predict", 2, "tl2cgen"),
        (GradientBoostingRegressor(n_estimators=5), "predict", 9, "tl2cgen"),
        (DecisionTreeClassifier(max_depth=5), "predict_proba", 2, "tl2cgen"),
        (DecisionTreeRegressor(max_depth=5), "predict", 9, "tl2cgen"),
        (IsolationForest(n_estimators=5), "predict", 2, "tl2cgen"),
        (LogisticRegression(), "predict_proba", 2, "linear"),
        (LogisticRegression(), "predict_proba", 3, "linear"),
        (LogisticRegression(), "predict", 3, "linear"),
        (SGDClassifier(loss="log_loss"), "predict_proba", 3, "linear"),
        (LinearSVC(), "predict", 2, "linear"),
        (LinearRegression(), "predict", 9, "linear"),
        (make_pipeline(StandardScaler(), Ridge()), "predict", 9, "linear"),
        (PoissonRegressor(), "predict", 9, "linear"),
        (GaussianNB(), "predict_proba", 2, "sklearn"),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else str(value),
)
def test_each_estimator_is_compiled_and_agrees(
    tmp_path: Path, estimator: Any, method: str, classes: int, engine: str
) -> None:
    frame = numbers()
    estimator.fit(frame, truth(frame, classes))
    with served(save_version(tmp_path / "1", estimator, frame, method=method)) as model:
        assert model.engine.name == engine, model.engine_note
        assert model.output == {"predict": "prediction"}.get(method, "score" if classes == 2 else "scores")
        assert_same(model, estimator, method, numbers(200, seed=1))


def test_labels_may_be_text_and_several_targets_are_a_list(tmp_path: Path) -> None:
    frame = numbers()
    forest = RandomForestClassifier(5, max_depth=4).fit(frame, NAMES[truth(frame)])
    with served(save_version(tmp_path / "1", forest, frame, method="predict")) as model:
        assert model.engine.name == "tl2cgen"
        assert str(model.output_type) == "struct<prediction: string>"
        assert set(model.predict(Batch(200, tuples(frame[:200])))) == set(NAMES)
    ridge = Ridge().fit(frame, np.column_stack([frame["x0"], frame["x1"]]))
    with served(save_version(tmp_path / "2", ridge, frame, method="predict")) as model:
        assert model.engine.name == "linear"
        assert_same(model, ridge, "predict", frame[:50])


def every_step() -> ColumnTransformer:
    return ColumnTransformer(
        [
            (
                "hot",
                make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")),
                [0],
            ),
            ("target", TargetEncoder(cv=2, random_state=0), ["origin"]),
            ("scaled", make_pipeline(SimpleImputer(), StandardScaler(), MinMaxScaler(clip=True)), ["distance"]),
            ("robust", RobustScaler(), ["hour"]),
        ]
    )


@pytest.mark.parametrize(
    ("columns", "estimator", "engine"),
    [
        (every_step(), LogisticRegression(max_iter=2000), "linear"),
        (every_step(), HistGradientBoostingClassifier(max_iter=5), "tl2cgen"),
        (
            ColumnTransformer(
                [("code", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["origin", "carrier"])],
                remainder=SimpleImputer(strategy="median"),
            ),
            RandomForestClassifier(5, max_depth=5),
            "tl2cgen",
        ),
        (
            ColumnTransformer(
                [
                    ("few", OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=3), ["carrier"]),
                    ("two", OneHotEncoder(drop="if_binary", handle_unknown="ignore"), ["origin"]),
                    ("rest", "drop", ["hour"]),
                ],
                remainder=SimpleImputer(),
            ),
            GradientBoostingClassifier(n_estimators=5),
            "tl2cgen",
        ),
        (
            make_pipeline(
                ColumnTransformer([("c", OneHotEncoder(handle_unknown="ignore"), ["carrier"])], remainder="drop"),
                FunctionTransformer(),
            ),
            GaussianNB(),
            "sklearn",
        ),
    ],
    ids=["linear", "boosted", "forest", "rare", "naive"],
)
def test_pipelines_over_text_numbers_and_nulls_agree(tmp_path: Path, columns: Any, estimator: Any, engine: str) -> None:
    frame = mixed()
    pipeline = Pipeline([("columns", columns), ("estimator", estimator)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if type(estimator) is GaussianNB:
            columns.steps[0][1].set_params(sparse_threshold=0.0)
        pipeline.fit(frame, truth(frame))
    asked = mixed(200, seed=1)
    asked.loc[::5, "carrier"] = None
    asked.loc[::7, "origin"] = "EWR"
    if "robust" not in str(columns):
        asked.loc[::6, "distance"] = np.nan
    with served(save_version(tmp_path / "1", pipeline, frame, required=False)) as model:
        assert model.engine.name == engine, model.engine_note
        assert_same(model, pipeline, "predict_proba", asked)


@pytest.mark.parametrize("rows", [2047, 2048, 4097])
def test_many_rows_are_shared_by_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(kernels, "_CORES", 3)
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(rows, 3)), columns=["a", "b", "c"])
    forest = HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(frame, frame["a"] * frame["b"] > 0)
    with served(save_version(tmp_path / "1", forest, frame)) as model:
        assert model.engine.name == "tl2cgen", model.engine_note
        assert_same(model, forest, "predict_proba", frame)


def test_the_sample_team_s_model_is_compiled(tmp_path: Path) -> None:
    from tidemill.stacks.flights.train import pipeline

    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            name: random.choice(["a", "b", "c"], 500) if name in departures.CATEGORICAL else random.normal(size=500)
            for name in departures.FEATURES
        }
    )
    fitted = pipeline().fit(frame, random.integers(0, 2, 500))
    with served(save_version(tmp_path / "1", fitted, frame, required=False)) as model:
        assert model.engine.name == "tl2cgen", model.engine_note
        frame.loc[::3, next(iter(departures.CATEGORICAL))] = "never seen"
        frame.loc[::4, departures.FEATURES[-1]] = np.nan
        assert_same(model, fitted, "predict_proba", frame)


def test_what_the_model_refuses_is_refused(tmp_path: Path) -> None:
    frame = mixed()
    strict = ColumnTransformer([("hot", OneHotEncoder(), ["carrier", "origin"])], remainder="passthrough")
    pipeline = make_pipeline(strict, LogisticRegression(max_iter=5000)).fit(frame, truth(frame))
    with served(save_version(tmp_path / "1", pipeline, frame, required=False)) as model:
        assert model.engine.name == "linear"
        rows = tuples(frame[:8])
        for row in (("XX", *rows[0][1:]), (None, *rows[0][1:]), (rows[0][0], None, *rows[0][2:])):
            with pytest.raises(ValueError, match="does not take") as refusal:
                model.predict(Batch(1, [row]))
            assert "XX" not in str(refusal.value)
            with pytest.raises(ValueError, match="does not take"):
                model.predict(Batch(9, model.contract.to_record_batch(Batch(9, [*rows, row]))))


def test_what_is_too_large_for_single_precision_is_refused_where_the_model_refuses_it(tmp_path: Path) -> None:
    frame = numbers()
    row = (1e300, 0.0, 0.0, 0.0)
    forest = RandomForestClassifier(3).fit(frame, truth(frame))
    with served(save_version(tmp_path / "1", forest, frame)) as model:
        assert model.engine.name == "tl2cgen"
        with pytest.raises(ValueError, match="infinite"):
            model.predict(Batch(1, [row]))
    boosted = HistGradientBoostingClassifier(max_iter=3).fit(frame, truth(frame))
    with served(save_version(tmp_path / "2", boosted, frame)) as model:
        expected = answer(boosted, "predict_proba", pd.DataFrame([row], columns=frame.columns))
        assert model.predict(Batch(1, [row])).tolist() == pytest.approx(expected.tolist())


def test_rows_may_be_one_tensor(tmp_path: Path) -> None:
    frame = numbers().to_numpy()
    forest = HistGradientBoostingClassifier(max_iter=5).fit(frame, truth(numbers()))
    with served(save_version(tmp_path / "1", forest, frame)) as model:
        assert model.contract.is_tensor
        assert model.engine.name == "tl2cgen"
        expected = forest.predict_proba(frame[:50])[:, 1]
        for mine in both_forms(model, [(row,) for row in frame[:50]])[:2]:
            assert difference(np.asarray(mine), expected) <= 1e-9


FORESTS: list[tuple[str, Callable[[int], Any]]] = [
    ("hist", lambda seed: HistGradientBoostingClassifier(max_iter=8, random_state=seed)),
    ("categorical", lambda seed: HistGradientBoostingRegressor(max_iter=8, categorical_features=[0])),
    ("random", lambda seed: RandomForestClassifier(8, max_depth=6, random_state=seed)),
    ("extra", lambda seed: ExtraTreesClassifier(8, max_depth=6, random_state=seed)),
]


@pytest.fixture(scope="module", params=FORESTS, ids=[name for name, _ in FORESTS])
def forest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A small forest over a code and three numbers, some of them missing, served as tl2cgen compiled it."""
    name, make = request.param
    frame = numbers(400, seed=3)
    frame["x0"] = np.random.default_rng(3).integers(0, 6, 400).astype(float)
    frame["x1"] = frame["x1"].where(frame["x1"] < 1)
    # A value whose lower half is all ones, which tl2cgen by itself takes for missing.
    frame["x3"] = np.where(frame["x3"] > 0, 0.9999999999999999, frame["x3"])
    target = truth(frame.fillna(0.0)) if name != "categorical" else frame.fillna(0.0).sum(axis=1)
    fitted = make(3).fit(frame, target)
    method = "predict" if name == "categorical" else "predict_proba"
    trusted = [*TRUSTED, "functools.partial", "sklearn.utils.validation.check_array"]
    folder = tmp_path_factory.mktemp("forest") / "1"
    save_version(folder, fitted, frame, method=method, required=False, skops_trusted_types=trusted)
    edges = sorted(
        {value for values in thresholds(Recipe(fitted, method, "trees", 1, False, {})).values() for value in values}
    )
    with served(folder) as model:
        assert model.engine.name == "tl2cgen", model.engine_note
        yield model, fitted, method, edges


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_forests_agree_on_thresholds_missing_values_and_unseen_categories(forest: Any, data: st.DataObject) -> None:
    model, fitted, method, edges = forest
    on = st.sampled_from(edges)
    beside = st.builds(math.nextafter, on, st.sampled_from([-math.inf, math.inf]))
    special = st.sampled_from([None, 0.0, -0.0, 0.9999999999999999, 7.0, -1.0, 2.5, 1e30, -1e30, 5e-324])
    value = st.one_of(on, beside, special, st.floats(-1e6, 1e6))
    rows = data.draw(st.lists(st.tuples(value, value, value, value), min_size=1, max_size=8))
    frame = pd.DataFrame(rows, columns=[f"x{index}" for index in range(4)], dtype="float64")
    expected = answer(fitted, method, frame)
    for mine in both_forms(model, rows)[:2]:
        assert difference(np.asarray(mine), expected) <= 1e-9


def compiler(folder: Path, script: str) -> str:
    path = folder / "compiler"
    path.write_text(f'#!/bin/sh\n{script}\nexec cc "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_an_engine_which_is_wrong_does_not_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = numbers()
    fitted = HistGradientBoostingClassifier(max_iter=5).fit(frame, truth(frame))
    folder = save_version(tmp_path / "1", fitted, frame)
    # It makes one leaf of each tree a little heavier.
    change = 'sed -i "s/result\\[0\\] += /result[0] += 0.00001 + /" "$file"'
    wrong = f'for file in "$@"; do case "$file" in *main.c) {change}; esac; done'
    monkeypatch.setenv("CC", compiler(tmp_path, wrong))
    with served(folder, wanted(["tl2cgen"])) as model:
        assert model.engine.name == "sklearn"
        assert "tl2cgen: it differs from the model itself by" in model.engine_note
        assert_same(model, fitted, "predict_proba", frame)
    with served(folder, wanted(["tl2cgen", "treelite"])) as model:
        assert model.engine.name == "treelite"
        assert_same(model, fitted, "predict_proba", frame)
    with served(folder, wanted(["tl2cgen"], tolerance=0.01)) as model:
        assert model.engine.name == "tl2cgen"


def test_without_a_compiler_the_next_engine_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = numbers()
    fitted = RandomForestClassifier(5, max_depth=4).fit(frame, truth(frame))
    folder = save_version(tmp_path / "1", fitted, frame)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    for engines, serves in ((["tl2cgen", "onnxruntime"], "onnxruntime"), (["tl2cgen"], "sklearn"), ([], "sklearn")):
        with served(folder, wanted(engines)) as model:
            assert model.engine.name == serves, model.engine_note
            assert_same(model, fitted, "predict_proba", frame)
    with served(folder, wanted(["tl2cgen"])) as model:
        assert model.engine_note == "not compiled: tl2cgen: no C compiler is installed"


def test_single_precision_does_not_serve_for_double(tmp_path: Path) -> None:
    frame = numbers()
    frame["x0"] = 1e9 + frame["x0"]
    fitted = GradientBoostingRegressor(n_estimators=5).fit(frame, frame["x1"] * 1e6)
    folder = save_version(tmp_path / "1", fitted, frame, method="predict")
    with served(folder, wanted(["onnxruntime"], tolerance=1e-12)) as model:
        assert model.engine.name == "sklearn"
        assert "onnxruntime" in model.engine_note


def test_what_is_not_known_is_not_compiled_and_says_why(tmp_path: Path) -> None:
    frame = mixed()
    own = make_pipeline(
        ColumnTransformer([("c", OneHotEncoder(), ["carrier"])], remainder="drop"),
        FunctionTransformer(np.log1p, feature_names_out="one-to-one"),
        LogisticRegression(),
    ).fit(frame, truth(frame))
    folder = save_version(tmp_path / "1", own, frame, skops_trusted_types=["numpy.log1p", "numpy.ufunc", "numpy.dtype"])
    with served(folder) as model:
        assert model.engine.name == "sklearn"
        assert model.engine_note == "not compiled: a function of the model's own"
        assert_same(model, own, "predict_proba", frame)


def test_what_was_compiled_is_unloaded(tmp_path: Path) -> None:
    if not Path("/proc/self/maps").exists():
        pytest.skip("this system does not say what is mapped")
    frame = numbers()
    fitted = HistGradientBoostingClassifier(max_iter=5).fit(frame, truth(frame))
    folder = save_version(tmp_path / "1", fitted, frame)
    from tidemill.runtime.serving.versions.model import load

    from tests.support.versions import info_of

    for engine in ("tl2cgen", "treelite", "onnxruntime"):
        chosen = wanted([engine])
        with served(folder, chosen) as first:
            name = first.engine.name
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        lines = len(Path("/proc/self/maps").read_text().splitlines())
        for _ in range(50):
            load(info_of(folder), folder, chosen).close()
        assert str(folder) not in Path("/proc/self/maps").read_text(), name
        # Libraries open a file of their own at times, and the allocator maps a little more; never one for each cycle.
        assert len(list(Path("/proc/self/fd").iterdir())) < descriptors + 25
        assert len(Path("/proc/self/maps").read_text().splitlines()) < lines + 25
    shutil.rmtree(folder)
