"""What a model may return, in the form of MLflow's own JSON, and the objects that are refused."""

from __future__ import annotations

import json
import math
import subprocess
import warnings
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.utils.proto_json_utils import NumpyEncoder, _get_jsonable_obj
from pydantic import BaseModel
from tidemill.runtime.serving.engines.outputs import Answer, AnswerError, as_request, binary_scores, normalise
from tidemill.runtime.serving.inference.finite import is_finite, non_finite_rows

NAN, INF = math.nan, math.inf
BIG = 2**53 + 1


class Item(BaseModel):
    name: str
    n: int = BIG
    when: datetime = datetime(2020, 1, 1)  # noqa: DTZ001


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@dataclass
class Plain:
    a: int


def mlflow_text(given: Any) -> str:
    """Return the JSON of MLflow's scoring server."""
    return json.dumps(_get_jsonable_obj(given), cls=NumpyEncoder)


def mlflow_value(outputs: Any) -> Any:
    if isinstance(outputs, Answer):
        return outputs.to_mlflow()
    return outputs.tolist() if isinstance(outputs, np.ndarray) else outputs


TWO_ROWS: list[tuple[str, Any, str, Any]] = [
    # name, given, form, rows
    ("floats", np.array([1.5, NAN]), "", [1.5, NAN]),
    ("float32", np.array([0.1, -INF], np.float32), "", [0.10000000149011612, -INF]),
    ("matrix", np.array([[1.0, 2.0], [3.0, NAN]]), "", [[1.0, 2.0], [3.0, NAN]]),
    ("cube", np.arange(8.0).reshape(2, 2, 2), "value", [[[0.0, 1.0], [2.0, 3.0]], [[4.0, 5.0], [6.0, 7.0]]]),
    ("integers", np.array([1, BIG]), "", [1, BIG]),
    ("unsigned", np.array([2**64 - 1, 0], np.uint64), "", [2**64 - 1, 0]),
    ("integer matrix", np.array([[1, BIG], [3, 4]]), "value", [[1, BIG], [3, 4]]),
    ("booleans", np.array([True, False]), "", [True, False]),
    ("texts", np.array(["a", "ü"]), "", ["a", "ü"]),
    ("objects", np.array([{"a": np.float32(0.5)}, None], object), "", [{"a": 0.5}, None]),
    ("series", pd.Series([1.5, NAN]), "series", [1.5, NAN]),
    ("named series", pd.Series([1, BIG], name="n"), "series", [1, BIG]),
    ("numbered series", pd.Series(["a", "b"], name=7), "series", ["a", "b"]),
    ("nullable series", pd.Series([1, 2], dtype="Int64", name="n"), "series", [1, 2]),
    (
        "times",
        pd.Series(pd.to_datetime(["2020-01-01T00:00:00.123456789", "2020-01-01T00:00:00"], format="ISO8601")),
        "series",
        ["2020-01-01T00:00:00.123456789", "2020-01-01T00:00:00"],
    ),
    (
        "frame",
        pd.DataFrame({"n": [1, BIG], "x": [NAN, INF], "s": ["a", "b"], 3: [True, False], "o": [{"k": [1]}, [2]]}),
        "frame",
        [
            {"n": 1, "x": NAN, "s": "a", "3": True, "o": {"k": [1]}},
            {"n": BIG, "x": INF, "s": "b", "3": False, "o": [2]},
        ],
    ),
    (
        "times in a frame",
        pd.DataFrame(
            {
                "naive": pd.to_datetime(["2020-01-01 12:00", "2020-06-01 12:00:00.5"], format="ISO8601"),
                "zone": pd.to_datetime(["2020-01-01 12:00", "2020-06-01"], format="ISO8601").tz_localize("Europe/Rome"),
            }
        ),
        "frame",
        [
            {"naive": "2020-01-01T12:00:00", "zone": "2020-01-01T12:00:00+01:00"},
            {"naive": "2020-06-01T12:00:00.500000", "zone": "2020-06-01T00:00:00+02:00"},
        ],
    ),
    (
        "mapping",
        {"n": np.array([1, BIG]), "p": np.array([[0.5, 0.5], [NAN, 1.0]]), "s": ["a", "b"]},
        "mapping",
        [{"n": 1, "p": [0.5, 0.5], "s": "a"}, {"n": BIG, "p": [NAN, 1.0], "s": "b"}],
    ),
    (
        "targets",
        [np.array([[0.25, 0.75], [1.0, 0.0]]), np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])],
        "targets",
        [[[0.25, 0.75], [0.5, 0.25, 0.25]], [[1.0, 0.0], [0.0, 0.0, 1.0]]],
    ),
    ("list", [NAN, -INF], "", [NAN, -INF]),
    ("tuple", (1, "a"), "", [1, "a"]),
    ("bytes", [b"x" * 80, b"1"], "", None),
    ("models", [Item(name="a"), {"b": Item(name="c")}], "", None),
    ("moments", [datetime(2020, 1, 1, tzinfo=UTC), date(2020, 1, 2)], "", ["2020-01-01T00:00:00+00:00", "2020-01-02"]),
    ("hours", [time(1, 2, 3), pd.Timestamp("2020-01-01T00:00:00.000000001")], "", None),
    ("enumerations", [Colour.RED, Level.HIGH], "", ["red", 3]),
    ("keys", [{2: "a", True: "b", None: "c", 1.5: "d"}, {}], "", None),
    ("micro", np.array(["2020-01-01T00:00:01", "2020-01-01T00:00:00.5"], "datetime64[us]"), "value", None),
    ("days", np.array(["2020-01-01", "2020-02-01"], "datetime64[D]"), "value", ["2020-01-01", "2020-02-01"]),
    ("months", np.array(["2020-01", "2020-02"], "datetime64[M]"), "value", ["2020-01-01", "2020-02-01"]),
    ("minutes", np.array(["2020-01-01T10:20", "2020-01-01T10:21"], "datetime64[m]"), "value", None),
]


@pytest.mark.parametrize(("given", "form", "rows"), [case[1:] for case in TWO_ROWS], ids=[case[0] for case in TWO_ROWS])
def test_answers_by_row_have_mlflows_json_and_a_value_for_each_row(given: Any, form: str, rows: Any) -> None:
    found = normalise(given, 2)
    assert (found.form if isinstance(found, Answer) else "") == form
    assert json.dumps(mlflow_value(found)) == mlflow_text(given)
    assert len(found) == 2
    if rows is not None:
        assert repr(found.to_rows() if isinstance(found, Answer) else mlflow_value(found)) == repr(rows)
    for request in (0, 1):
        part = found[request : request + 1]
        whole = found.to_rows() if isinstance(found, Answer) else mlflow_value(found)
        own = part.to_rows() if isinstance(part, Answer) else mlflow_value(part)
        assert repr(own) == repr(whole[request : request + 1])


@pytest.mark.parametrize(
    "given",
    [
        *[case[1] for case in TWO_ROWS],
        [],
        {},
        5.0,
        np.float64(NAN),
        np.int64(BIG),
        np.array(5.0),
        "text",
        None,
        True,
        {"a": 1, "b": [1, 2, 3]},
        {"forecast": np.arange(5), "low": [1.0, NAN]},
        Item(name="a"),
        pd.DataFrame({"a": []}),
        pd.DataFrame(index=[1, 2]),
        pd.Series([1.0, 2.0, 3.0, 4.0, 5.0]),
        np.arange(6).reshape(3, 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_an_answer_of_any_number_of_rows_has_mlflows_json(given: Any, rows: int) -> None:
    found = normalise(given, rows)
    assert json.dumps(mlflow_value(found)) == mlflow_text(given)
    assert json.dumps(as_request(found).to_mlflow()) == mlflow_text(given)
    assert as_request(found).to_rows() is None
    if isinstance(found, Answer) and found.rows is not None:
        values = found.to_rows()
        assert values is not None and len(values) == rows
    elif not isinstance(found, Answer):
        assert len(found) == rows


@pytest.mark.parametrize(
    ("given", "rows", "by_row"),
    [
        ([1.0, 2.0, 3.0, 4.0, 5.0], 1, None),
        (pd.Series([1.0, 2.0]), 3, None),
        ([], 1, None),
        (3.5, 3, None),
        (3.5, 1, [3.5]),
        ({"a": 1, "b": [1, 2]}, 1, [{"a": 1, "b": [1, 2]}]),
        ({"a": 1, "b": [1, 2]}, 2, None),
        ({"a": [1], "b": ["x"]}, 1, [{"a": 1, "b": "x"}]),
        (Item(name="a", n=1), 1, [{"name": "a", "n": 1, "when": "2020-01-01T00:00:00"}]),
        ([[1, 2], [3]], 2, [[1, 2], [3]]),
    ],
)
def test_answers_of_a_request_have_no_rows(given: Any, rows: int, by_row: Any) -> None:
    found = normalise(given, rows)
    assert (found.to_rows() if isinstance(found, Answer) else found) == by_row


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        # MLflow writes an integer of nanoseconds, "NaT" or a very small number, by the kind of container.
        (np.array(["2020-01-01T00:00:00.123456789", "NaT"], "datetime64[ns]"), ["2020-01-01T00:00:00.123456789", None]),
        ([np.datetime64("2020-01-01T00:00:00.5", "ms"), pd.NaT], ["2020-01-01T00:00:00.500000", None]),
        (pd.Series([pd.Timestamp("2020-01-01"), pd.NaT]), ["2020-01-01T00:00:00", None]),
        (pd.Series([1, None], dtype="Int64"), [1, None]),
        # MLflow refuses these.
        ([timedelta(seconds=1.5), np.timedelta64(250, "ms")], [1.5, 0.25]),
        (pd.Series(pd.to_timedelta([1, 2], unit="s")), [1.0, 2.0]),
        ([Decimal("1.5"), pd.NA], [1.5, None]),
        (pd.Index([1, 2]), [1, 2]),
        ({"a": pd.Series([1, 2])}, [{"a": 1}, {"a": 2}]),
        (np.ma.masked_array([1.0, 2.0], [False, True]), [1.0, None]),
    ],
)
def test_values_that_mlflow_gives_differently_or_refuses(given: Any, texts: Any) -> None:
    found = normalise(given, 2)
    assert (found.to_rows() if isinstance(found, Answer) else mlflow_value(found)) == texts


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            scipy.sparse.csr_matrix([[1.0]]),
            "the model returned a scipy.sparse csr_matrix, which is not a table, an array or JSON; return .toarray()",
        ),
        (
            (value for value in [1.0]),
            "the model returned a generator, which is not a table, an array or JSON; return a list",
        ),
        (1j, "the model returned a complex, .*two numbers"),
        (np.complex64(1j), "the model returned a numpy complex64, .*two numbers"),
        (np.array([1j]), "the model returned a numpy array of complex128, .*two numbers"),
        (pd.DataFrame({"a": [1j]}), "complex128, .*two numbers"),
        ([{"a": [1j]}], "the model returned a complex, "),
        ({1, 2}, "the model returned a set, .*return a list"),
        (object(), "the model returned an object, .*return a data frame, an array, a list or a dict"),
        ([Plain(1)], r"test_outputs Plain, "),
        (subprocess.DEVNULL.__class__, "the model returned a type, "),
        (pd.DataFrame({"a": [pd.Interval(0, 1)]}), "Interval, "),
    ],
)
def test_objects_that_are_neither_tables_nor_arrays_nor_json_are_refused_by_name(given: Any, message: str) -> None:
    with pytest.raises(AnswerError, match=message):
        normalise(given, 1)


def test_both_probabilities_of_a_binary_classifier_are_kept() -> None:
    matrix = np.array([[0.1, 0.9], [0.7, 0.3]])
    score = binary_scores(normalise(matrix, 2))
    assert isinstance(score, Answer)
    assert (score.to_mlflow(), score.to_rows()) == (matrix.tolist(), [0.9, 0.3])
    three = normalise(np.ones((2, 3)), 2)
    assert binary_scores(three) is three


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=3)
    | st.floats(width=32).map(np.float32)
    | st.integers(-100, 100).map(np.int16)
    | st.datetimes(timezones=st.none() | st.just(timezone(timedelta(hours=5)))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(VALUES, st.integers(1, 3))
def test_any_json_of_python_and_numpy_is_mlflows(value: Any, rows: int) -> None:
    assert json.dumps(mlflow_value(normalise(value, rows))) == mlflow_text(value)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_frame_is_mlflows(data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 3))
    kinds: dict[str, Any] = {
        "float64": st.floats(),
        "float32": st.floats(width=32),
        "int64": st.integers(-(2**63), 2**63 - 1),
        "uint8": st.integers(0, 255),
        "bool": st.booleans(),
        "object": VALUES,
        "str": st.text(max_size=3),
        "datetime64[ns]": st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),  # noqa: DTZ001
    }
    names = data.draw(st.lists(st.text(max_size=2) | st.integers(0, 9), max_size=4, unique_by=str))
    columns: dict[Any, pd.Series] = {}
    for name in names:
        kind = data.draw(st.sampled_from(sorted(kinds)))
        columns[name] = pd.Series(data.draw(st.lists(kinds[kind], min_size=rows, max_size=rows)), dtype=kind)
    frame = pd.DataFrame(columns)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert json.dumps(mlflow_value(normalise(frame, 2))) == mlflow_text(frame)


@pytest.mark.parametrize(
    ("outputs", "rows"),
    [
        (np.array([1.0, NAN, 2.0, -INF]), [1, 3]),
        (np.array([[1.0, 2.0], [NAN, 2.0]]), [1]),
        ([1, "x", [1.0, {"a": [INF]}], None], [2]),
        (Answer("frame", ["a", "b"], [np.array([1.0, NAN]), [INF, None]], 2), [0, 1]),
        (Answer("targets", (), [np.array([[NAN, 0.5]])], 1), [0]),
        (Answer("score", (), [np.array([NAN, 0.5]), np.array([0.5, 0.5])], 2), []),
        (Answer("value", (), [np.array([[[1]], [[2]]])], 2), []),
        (Answer("value", (), [{"a": [1.0, NAN]}], None), [0]),
        (Answer("value", (), [{"a": NAN}], 1), [0]),
        (Answer("value", (), [np.array([1.0, 2.0, NAN])], None), [0]),
        (Answer("mapping", ["a"], [["x"]], 1), []),
        ([], []),
    ],
)
def test_rows_that_are_not_finite_are_found_in_every_form(outputs: Any, rows: list[int]) -> None:
    assert non_finite_rows(outputs) == rows
    assert is_finite(outputs) is (not rows)


@pytest.mark.parametrize(
    ("outputs", "rows"),
    [
        (normalise(pd.Series(["a", None]), 2), []),
        (normalise(pd.DataFrame({"s": ["a", None], "n": [1.0, 2.0]}), 2), []),
        (normalise(pd.DataFrame({"s": ["a", None], "n": [NAN, 2.0]}), 2), [0]),
        (["a", NAN, INF], [2]),
        ([["a", NAN], ["b", "c"]], []),
        (Answer("series", (), [["a", NAN]], None), []),
        (Answer("frame", ["s", "n"], [["a", NAN], [1.0, NAN]], None), [0]),
        (Answer("value", (), [{"s": ["a", NAN]}], None), []),
    ],
)
def test_nan_beside_texts_is_a_missing_text(outputs: Any, rows: list[int]) -> None:
    assert non_finite_rows(outputs) == rows
    # MLflow writes it as NaN.
    assert not is_finite(outputs)


LONG = np.array([0.5, 1.5], np.longdouble)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (LONG, [0.5, 1.5]),
        (LONG.reshape(2, 1, 1), [[[0.5]], [[1.5]]]),
        (LONG[:1], [0.5]),
        (pd.Series(LONG), [{"0": 0.5}, {"0": 1.5}]),
        (pd.DataFrame({"a": LONG}), [{"a": 0.5}, {"a": 1.5}]),
        ({"a": LONG}, {"a": [0.5, 1.5]}),
        ({"a": np.ma.MaskedArray(LONG)}, {"a": [0.5, 1.5]}),
        ({"a": {"b": LONG}}, {"a": {"b": [0.5, 1.5]}}),
    ],
)
def test_long_doubles_become_doubles(given: Any, expected: Any) -> None:
    value = mlflow_value(normalise(given, 2))
    assert json.loads(json.dumps(value)) == expected
