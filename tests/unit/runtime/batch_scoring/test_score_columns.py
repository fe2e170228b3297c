"""Each form of answer as columns of a file of scores."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tidemill.runtime.batch_scoring.outputs import open_sink
from tidemill.runtime.batch_scoring.score_columns import ScoreColumns
from tidemill.runtime.common.errors import ConfigError, PlatformError, UserError
from tidemill.runtime.serving.engines.outputs import as_request, binary_scores, normalise

from tests.unit.runtime.serving.codecs.test_answers import model_for

BIG = 2**53 + 1
NAN = math.nan
TARGETS = [np.array([[0.25, 0.75], [1.0, 0.0]]), np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])]


def columns(outputs: Any, output: str = "prediction", kept: tuple[str, ...] = ()) -> dict[str, list[Any]]:
    found = ScoreColumns(model_for(outputs, output), "parquet").convert(outputs, 2, kept)
    return {name: array.to_pylist() for name, array in found.items()}


@pytest.mark.parametrize(
    ("outputs", "output", "expected"),
    [
        (np.array([1.5, NAN]), "prediction", {"prediction": [1.5, NAN]}),
        (normalise(np.array([1, BIG]), 2), "prediction", {"prediction": [1, BIG]}),
        (binary_scores(np.array([[0.25, 0.75], [0.1, 0.9]])), "score", {"score": [0.75, 0.9]}),
        (normalise(pd.Series([1, BIG], name="x"), 2), "prediction", {"prediction": [1, BIG]}),
        (
            normalise(pd.DataFrame({"x": [NAN, math.inf], "s": ["a", None], "n": [1, BIG]}), 2),
            "prediction",
            {"x": [NAN, math.inf], "s": ["a", None], "n": [1, BIG]},
        ),
        (normalise({"a": [1, 2], "b": ["x", "y"]}, 2), "prediction", {"a": [1, 2], "b": ["x", "y"]}),
        (
            normalise(TARGETS, 2),
            "prediction",
            {"scores_0": [[0.25, 0.75], [1.0, 0.0]], "scores_1": [[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]]},
        ),
        (normalise(np.arange(4).reshape(2, 1, 2), 2), "prediction", {"prediction": [[[0, 1]], [[2, 3]]]}),
        (normalise([{"a": [{}]}, "x"], 2), "prediction", {"prediction": ['{"a": [{}]}', "x"]}),
    ],
)
def test_each_form_has_its_columns(outputs: Any, output: str, expected: dict[str, Any]) -> None:
    found = columns(outputs, output)
    if output == "prediction" and expected.get("prediction") == ['{"a": [{}]}', "x"]:
        expected = {"prediction": ['{"a": [{}]}', '"x"']}
    assert repr(found) == repr(expected)


def test_a_column_of_a_frame_with_the_name_of_a_kept_column_has_a_prefix() -> None:
    frame = normalise(pd.DataFrame({"x": [1, 2], "y": [3, 4]}), 2)
    assert columns(frame, kept=("id", "x")) == {"prediction_x": [1, 2], "y": [3, 4]}


@pytest.mark.parametrize(
    ("outputs", "kept", "expected"),
    [
        (
            normalise(pd.DataFrame({"p": [1, 2], "prediction_p": [3, 4]}), 2),
            ("p",),
            {"prediction_prediction_p": [1, 2], "prediction_p": [3, 4]},
        ),
        (
            normalise(pd.DataFrame({"p": [1, 2]}), 2),
            ("p", "prediction_p"),
            {"prediction_prediction_p": [1, 2]},
        ),
        (
            normalise([np.array([[0.5], [1.5]]), np.array([[2.5], [3.5]])], 2),
            ("scores_0",),
            {"prediction_scores_0": [[0.5], [1.5]], "scores_1": [[2.5], [3.5]]},
        ),
    ],
)
def test_all_columns_have_names_of_their_own(outputs: Any, kept: tuple[str, ...], expected: dict[str, Any]) -> None:
    assert columns(outputs, kept=kept) == expected
    assert list(ScoreColumns(model_for(outputs), "parquet").empty(kept)) == list(expected)


def test_two_columns_of_a_csv_file_with_one_name_are_refused(tmp_path: Path) -> None:
    schema = pa.schema([("scores_0_0", pa.float64()), ("scores_0", pa.list_(pa.float64(), 2))])
    with pytest.raises(ConfigError, match="would have this name"), open_sink(tmp_path / "scores.csv", "csv", schema):
        pass


@pytest.mark.parametrize(
    ("outputs", "kind"), [([1, 2], pa.int64()), ([0.5, NAN], pa.float64()), (np.array([1.5, 2.0]), pa.float64())]
)
def test_scores_of_a_model_without_an_answer_have_their_own_type(outputs: Any, kind: pa.DataType) -> None:
    found = ScoreColumns(model_for(outputs, answered=False), "parquet").convert(outputs, 2, ())
    assert found["prediction"].type == kind


def test_integers_stay_integers_if_one_is_missing() -> None:
    """Pandas makes floats of them."""
    scores = ScoreColumns(model_for(normalise(pd.DataFrame({"a": [1, 2]}), 2)), "parquet")
    assert scores.convert(normalise(pd.DataFrame({"a": [1, BIG]}), 2), 2, ())["a"].to_pylist() == [1, BIG]
    later = scores.convert(normalise(pd.DataFrame({"a": [3.0, NAN]}), 2), 2, ())["a"]
    assert (later.type, later.to_pylist()) == (pa.int64(), [3, None])
    with pytest.raises(PlatformError, match=r"double instead of int64 for a; return values of one type"):
        scores.convert(normalise(pd.DataFrame({"a": [3.5, NAN]}), 2), 2, ())


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (np.array([1.5, 2.0]), {"prediction": pa.float64()}),
        (normalise(pd.DataFrame({"id": [1, 2], "s": ["a", "b"]}), 2), {"prediction_id": pa.int64(), "s": pa.string()}),
        (normalise({"a": [1, 2], "b": [[1], [2]]}, 2), {"a": pa.string(), "b": pa.string()}),
        (normalise(TARGETS, 2), {"scores_0": pa.list_(pa.float64()), "scores_1": pa.list_(pa.float64())}),
    ],
)
def test_no_rows_have_the_columns_of_the_sample(outputs: Any, expected: dict[str, pa.DataType]) -> None:
    found = ScoreColumns(model_for(outputs), "parquet").empty(("id",))
    assert list(found) == list(expected)
    assert {name: len(array) for name, array in found.items()} == dict.fromkeys(expected, 0)
    if "b" not in expected:
        assert {name: array.type for name, array in found.items()} == expected


@pytest.mark.parametrize(
    ("outputs", "counts"),
    [
        (normalise([1.0, 2.0, 3.0, 4.0, 5.0], 1), "5 values for 1 row;"),
        (normalise(7, 3), "1 value for 3 rows;"),
        (normalise(pd.DataFrame({"a": [1, 2]}), 3), "2 values for 3 rows;"),
        (as_request(normalise(np.array([1.0, 2.0]), 2)), "2 values for 2 rows;"),
    ],
)
def test_answers_of_the_request_are_refused_with_their_counts(outputs: Any, counts: str) -> None:
    rows = int(counts.split(" for ")[1].split()[0])
    with pytest.raises(UserError, match=counts + " a table of scores needs one value for each row"):
        ScoreColumns(model_for(outputs), "parquet").convert(outputs, rows, ())


def test_later_answers_have_the_columns_and_types_of_the_first() -> None:
    scores = ScoreColumns(model_for(normalise(pd.DataFrame({"a": [1.5]}), 1)), "parquet")
    first = scores.convert(normalise(pd.DataFrame({"a": [1]}), 1), 1, ())
    assert first["a"].type == pa.float64()
    assert scores.convert(normalise(pd.DataFrame({"a": [2]}), 1), 1, ())["a"].type == pa.float64()
    with pytest.raises(PlatformError, match="the columns a, b instead of a"):
        scores.convert(normalise(pd.DataFrame({"a": [2.0], "b": [1]}), 1), 1, ())
    with pytest.raises(PlatformError, match="string instead of double for a"):
        scores.convert(normalise(pd.DataFrame({"a": ["x"]}), 1), 1, ())


def test_csv_has_a_column_for_each_value_and_empty_cells_for_nan(tmp_path: Path) -> None:
    kind: Literal["csv"] = "csv"
    targets = [np.array([[0.25, NAN]]), np.array([[math.inf, 0.0, 1.0]])]
    found = ScoreColumns(model_for(normalise(targets, 1)), kind).convert(normalise(targets, 1), 1, ())
    batch = pa.RecordBatch.from_arrays(list(found.values()), names=list(found))
    with open_sink(tmp_path / "scores.csv", kind, batch.schema) as sink:
        sink.write(batch)
    header, line = (tmp_path / "scores.csv").read_text().splitlines()
    assert header == '"scores_0_0","scores_0_1","scores_1_0","scores_1_1","scores_1_2"'
    assert line == "0.25,,inf,0,1"
    ragged = normalise([[1.0], [1.0, 2.0]], 2)
    with pytest.raises(ConfigError, match="lists of different lengths"):
        ScoreColumns(model_for(ragged), kind).convert(ragged, 2, ())
