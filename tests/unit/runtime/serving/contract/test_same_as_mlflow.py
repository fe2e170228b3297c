"""A model gets from tidemill what it gets from MLflow's own server: columns, types, labels of rows, nulls, parameters.

Each difference is a test of its own, which says what MLflow does.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pydantic
import pytest
from mlflow.exceptions import MlflowException
from mlflow.types import ColSpec, ParamSpec, TensorSpec
from mlflow.types.schema import AnyType, Array, DataType, Map, Object, Property
from mlflow.types.type_hints import _convert_data_to_type_hint, _infer_schema_from_list_type_hint
from tidemill.runtime.serving.contract.model_contract import Contract
from tidemill.runtime.serving.http.errors import Problem
from tidemill.runtime.serving.protocols.mlflow import read_json

from tests.support.oracle import contract_of, seen_in_mlflow, seen_in_tidemill, signature
from tests.support.protocols import LIMITS

VALUES: dict[str, Any] = {
    "long": 3,
    "integer": 3,
    "boolean": True,
    "float": 1.5,
    "double": 1.5,
    "string": "a",
    "datetime": "2024-05-01T10:00:00",
    "binary": "eHg=",
}


def same(of: Any, payload: Any) -> Any:
    """Check that both give the model the same; return it."""
    theirs, ours = seen_in_mlflow(of, payload), seen_in_tidemill(of, payload)
    if isinstance(theirs.data, pd.DataFrame):
        pd.testing.assert_frame_equal(ours.data, theirs.data, check_index_type=False)
        assert [[type(cell) for cell in row] for row in ours.data.to_numpy(object).tolist()] == [
            [type(cell) for cell in row] for row in theirs.data.to_numpy(object).tolist()
        ]
    else:
        assert repr(ours.data) == repr(theirs.data)
    assert ours.params == theirs.params or (not ours.params and not theirs.params)
    return ours.data


def optional(kind: str) -> Any:
    return signature([ColSpec(kind, "o", required=False), ColSpec("double", "x")])


def records(*values: Any) -> dict[str, Any]:
    return {"dataframe_records": [{"x": 1.0} if value is ... else {"x": 1.0, "o": value} for value in values]}


@pytest.mark.parametrize("kind", VALUES)
def test_values_without_null_have_the_same_types(kind: str) -> None:
    value = VALUES[kind]
    for of in (optional(kind), signature([ColSpec(kind, "o"), ColSpec("double", "x")])):
        frame = same(of, records(value, value))
        same(of, records(value))
        same(of, {"dataframe_split": {"columns": ["o", "x"], "data": [[value, 1.0], [value, 2.0]]}})
        if kind != "binary":
            same(of, {"inputs": {"o": [value, value], "x": [1, 2]}})
            same(of, {"instances": [{"o": value, "x": 1}, {"o": value, "x": 1}]})
    if kind == "string":
        assert list(frame.select_dtypes("str").columns) == ["o"]


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("rows", [1, 2, 300])
def test_an_absent_column_is_absent(kind: str, rows: int) -> None:
    payload = {"dataframe_records": [{"x": 1.0}] * rows}
    assert list(same(optional(kind), payload).columns) == ["x"]
    assert list(same(optional(kind), {"dataframe_split": {"columns": ["x"], "data": [[1]] * rows}}).columns) == ["x"]
    assert list(same(optional(kind), {"inputs": {"x": [1.5] * rows}}).columns) == ["x"]
    assert list(same(optional(kind), "x\n" + "1.5\n" * rows).columns) == ["x"]


@pytest.mark.parametrize("kind", ["float", "double", "string", "datetime"])
@pytest.mark.parametrize("rows", [1, 150])
def test_null_is_what_mlflow_makes_of_it(kind: str, rows: int) -> None:
    value = VALUES[kind]
    same(optional(kind), records(*[value, None] * rows))
    same(optional(kind), records(*[None] * 2 * rows))
    same(optional(kind), records(*[value, ...] * rows))
    same(optional(kind), {"dataframe_split": {"columns": ["o", "x"], "data": [[value, 1.0], [None, 2.0]] * rows}})


@pytest.mark.parametrize(("kind", "dtype", "null"), [("long", "Int64", pd.NA), ("integer", "Int32", pd.NA)])
@pytest.mark.parametrize("rows", [1, 150])
def test_null_in_whole_numbers_which_mlflow_refuses(kind: str, dtype: str, null: Any, rows: int) -> None:
    for payload in (records(*[3, None] * rows), records(*[3, ...] * rows)):
        with pytest.raises(MlflowException):
            seen_in_mlflow(optional(kind), payload)
        column = seen_in_tidemill(optional(kind), payload).data["o"]
        assert (str(column.dtype), column[0], column[1]) == (dtype, 3, null)


@pytest.mark.parametrize(("kind", "value"), [("boolean", True), ("binary", b"xx")])
def test_null_stays_null_in_booleans_and_bytes(kind: str, value: Any) -> None:
    payload = records(VALUES[kind], None)
    column = seen_in_tidemill(optional(kind), payload).data["o"]
    assert (str(column.dtype), column.tolist()) == ("object", [value, None])
    if kind == "boolean":
        assert seen_in_mlflow(optional(kind), payload).data["o"].tolist() == [True, False], "null is not false"
    else:
        with pytest.raises(MlflowException):
            seen_in_mlflow(optional(kind), payload)


@pytest.mark.parametrize("index", [[5, 6], ["a", "b"], ["a", 1], [1.5, 2], [5, 5], [0, 1], [True, False], None])
def test_the_labels_of_rows_reach_the_model(index: Any) -> None:
    of = signature([ColSpec("string", "s"), ColSpec("long", "n", required=False)])
    for columns, row in ((["s"], ["x"]), (["s", "n"], ["x", 1]), (["n", "s"], [1, "x"])):
        frame = same(of, {"dataframe_split": {"columns": columns, "data": [row, row], "index": index}})
        assert list(frame.index) == (index or [0, 1])


@pytest.mark.parametrize("index", [[5], "ab", [None, 1], [[1], [2]]])
def test_labels_that_are_none_are_refused(index: Any) -> None:
    of = signature([ColSpec("string", "s")])
    with pytest.raises(Problem) as caught:
        seen_in_tidemill(of, {"dataframe_split": {"columns": ["s"], "data": [["x"], ["y"]], "index": index}})
    assert caught.value.errors[0].field.startswith("dataframe_split.index")


def test_further_columns_are_ignored() -> None:
    of = signature([ColSpec("long", "o")])
    for payload in (
        {"dataframe_records": [{"o": 1, "z": 2}]},
        {"dataframe_split": {"columns": ["z", "o", 3], "data": [["a", 1, None]]}},
        {"inputs": {"o": [1], "z": [2]}},
        {"inputs": {"o": [1]}},
        {"instances": [{"o": 1, "z": {"a": 2}}]},
        "z,o\na,1\n",
        ",o\n7,1\n",
        "o\n7,1\n",
        "o\n1\n\n",
        "o\n1\n   \n\n2\n",
        "o\n1.0\n",
        "o\n 1 \n",
    ):
        assert list(same(of, payload).columns) == ["o"]


def test_a_single_value_for_each_column_is_one_row() -> None:
    assert same(
        signature([ColSpec("string", "s"), ColSpec("string", "t")]), {"inputs": {"s": "a", "t": "b"}}
    ).shape == (1, 2)


@pytest.mark.parametrize("value", ["a", None, 1.5, 3, True])
def test_a_single_value_is_for_all_rows(value: Any) -> None:
    kind = {str: "string", float: "double", int: "long", bool: "boolean", type(None): "double"}[type(value)]
    frame = same(
        signature([ColSpec("double", "x"), ColSpec(kind, "y", required=value is not None)]),
        {"inputs": {"x": [1.0, 2.0], "y": value}},
    )
    assert len(frame) == 2


@pytest.mark.parametrize(("kind", "value"), [("string", "a"), ("double", 1.5), ("integer", 3), ("boolean", True)])
def test_the_only_column_without_a_name_may_come_as_a_value(kind: Any, value: Any) -> None:
    assert same(signature([ColSpec(kind)]), {"inputs": value}).to_numpy().tolist() == [[value]]


@pytest.mark.parametrize("value", [None, "a", {"a": 1.0}])
def test_a_wrong_value_for_all_rows_is_named_once(value: Any) -> None:
    with pytest.raises(Problem) as caught:
        seen_in_tidemill(
            signature([ColSpec("double", "x"), ColSpec("double", "y")]), {"inputs": {"x": [1.0, 2.0], "y": value}}
        )
    assert [error.field for error in caught.value.errors] == ["inputs.y" if isinstance(value, dict) else "inputs.y[0]"]


@pytest.mark.parametrize("value", [3, 3.0, -(2**63)])
def test_whole_numbers(value: Any) -> None:
    same(signature([ColSpec("long", "o")]), {"dataframe_records": [{"o": value}]})


@pytest.mark.parametrize("value", [3.5, True, "3", 2**63, 1e19])
def test_numbers_that_mlflow_changes_are_refused(value: Any) -> None:
    of = signature([ColSpec("long", "o")])
    assert seen_in_mlflow(of, {"dataframe_records": [{"o": value}]}).data["o"][0] != repr(value)
    with pytest.raises(Problem):
        seen_in_tidemill(of, {"dataframe_records": [{"o": value}]})


@pytest.mark.parametrize(
    "text", ["2024-05-01", "2024-05-01 10:00", "2024-05-01T10:00:00.123456", "2024-05-01T10:00:00.5"]
)
def test_times_without_a_zone_are_the_same(text: str) -> None:
    same(signature([ColSpec("datetime", "o")]), {"dataframe_records": [{"o": text}]})


def test_times_with_a_zone_become_utc_where_mlflow_refuses_them() -> None:
    of = signature([ColSpec("datetime", "o")])
    for text in ("2024-05-01T10:00:00Z", "2024-05-01T12:00:00+02:00"):
        payload = {"dataframe_records": [{"o": text}]}
        with pytest.raises(MlflowException):
            seen_in_mlflow(of, payload)
        column = seen_in_tidemill(of, payload).data["o"]
        assert (str(column.dtype), column[0]) == ("datetime64[ns]", pd.Timestamp("2024-05-01T10:00:00"))


def test_nanoseconds_are_not_cut() -> None:
    of = signature([ColSpec("datetime", "o")])
    with pytest.raises(Problem, match="finer than a microsecond"):
        seen_in_tidemill(of, {"dataframe_records": [{"o": "2024-05-01T10:00:00.123456789"}]})
    same(of, {"dataframe_records": [{"o": "2024-05-01T10:00:00.123456000"}]})


CSV = [ColSpec("long", "n"), ColSpec("double", "d"), ColSpec("string", "s"), ColSpec("boolean", "b")]


@pytest.mark.parametrize(
    "row",
    ["1,2.5,x,True", "1,2.5,x,true", "1,2.5,x,TRUE", "1,2.5,x,1", "1,2.5,x,0", "1.0,2,x,False", " 1 , 2.5 , x ,false",
     "1,1e3,007,FALSE", '1,2,"a,b",False'],
)  # fmt: skip
def test_cells_of_csv_are_read_alike(row: str) -> None:
    payload = f"n,d,s,b\n{row}\n"
    theirs, ours = seen_in_mlflow(signature(CSV), payload).data, seen_in_tidemill(signature(CSV), payload).data
    # MLflow makes text of CSV an object column, and of JSON a text column.
    pd.testing.assert_frame_equal(ours.astype({"s": object}), theirs)


@pytest.mark.parametrize("cell", ["", "NA", "NaN", "nan", "null", "None", "N/A", "<NA>", "#N/A", '""', '"NULL"'])
def test_the_same_cells_of_csv_are_null(cell: str) -> None:
    of = signature(
        [ColSpec("long", "n"), ColSpec("double", "d", required=False), ColSpec("string", "s", required=False)]
    )
    for row in (f"1,{cell},x", f"1,2.5,{cell}"):
        payload = f"n,d,s\n1,1.5,y\n{row}\n"
        theirs, ours = seen_in_mlflow(of, payload).data, seen_in_tidemill(of, payload).data
        assert ours.isna().to_numpy().tolist() == theirs.isna().to_numpy().tolist()
        assert ours.isna().to_numpy().any()


def test_columns_whose_names_are_integers() -> None:
    of = signature([ColSpec("long", 2019), ColSpec("double", 2020, required=False)])  # type: ignore[arg-type]
    frame = same(of, {"dataframe_split": {"columns": [2019, 2020], "data": [[1, 2.5]]}})
    assert list(frame.columns) == [2019, 2020]
    same(of, {"dataframe_split": {"columns": [2020, 2019], "data": [[2.5, 1]]}})
    same(of, {"dataframe_split": {"columns": [2019], "data": [[1]]}})
    # JSON has no integers as keys, so MLflow cannot take these.
    for payload in (
        {"dataframe_records": [{"2019": 1, "2020": 2.5}]},
        {"dataframe_split": {"columns": ["2019", "2020"], "data": [[1, 2.5]]}},
        {"inputs": {"2019": [1], "2020": [2.5]}},
        "2019,2020\n1,2.5\n",
    ):
        with pytest.raises(MlflowException):
            seen_in_mlflow(of, payload)
        pd.testing.assert_frame_equal(seen_in_tidemill(of, payload).data, frame)
    with pytest.raises(Problem, match="missing column"):
        seen_in_tidemill(signature([ColSpec("long", "2019")]), {"dataframe_split": {"columns": [2019], "data": [[1]]}})


NESTED: list[tuple[Any, Any]] = [
    (Object([Property("n", DataType.long), Property("s", DataType.string)]), {"n": 3, "s": "x"}),
    (Object([Property("b", DataType.boolean), Property("d", DataType.double)]), {"b": True, "d": 1.5}),
    (Object([Property("b", DataType.binary)]), {"b": "eHg="}),
    (Object([Property("a", DataType.long), Property("z", DataType.long, required=False)]), {"a": 1}),
    (Object([Property("a", DataType.long), Property("z", DataType.long, required=False)]), {"a": 1, "z": None}),
    (Object([Property("o", Object([Property("l", Array(DataType.long))]))]), {"o": {"l": [1, 2]}}),
    (Array(DataType.long), [1, 2]),
    (Array(DataType.double), [1.0, 2.5]),
    (Array(DataType.boolean), [True, False]),
    (Array(DataType.string), ["a", "bc"]),
    (Array(DataType.binary), ["eHg="]),
    (Array(DataType.long), []),
    (Array(Array(DataType.long)), [[1], [2, 3]]),
    (Array(Object([Property("n", DataType.long)])), [{"n": 3}]),
    (Map(DataType.string), {"a": "x"}),
    (Map(DataType.long), {"a": 3}),
    (Map(Array(DataType.boolean)), {"a": [True]}),
    (AnyType(), {"z": [1, "a", None]}),
]


@pytest.mark.parametrize(("kind", "value"), NESTED)
@pytest.mark.parametrize("rows", [1, 2, 300])
@pytest.mark.parametrize("required", [True, False])
def test_nested_values_have_the_same_types_inside(kind: Any, value: Any, rows: int, required: bool) -> None:
    of = signature([ColSpec(kind, "c", required=required)])
    payload = {"dataframe_records": [{"c": value}] * rows}
    frame = same(of, payload)
    theirs = seen_in_mlflow(of, payload).data
    assert repr(frame["c"][rows - 1]) == repr(theirs["c"][rows - 1])
    if not required:
        same(of, {"dataframe_records": [{"c": value}, {"c": None}]})


ARRAYS: list[tuple[Any, Any]] = [
    *((kind, value) for kind, value in NESTED if isinstance(kind, Array) and value != [[1], [2, 3]]),
    (Array(Array(DataType.double)), [[1.0, 2.0], [3.0, 4.0]]),
    (Array(AnyType()), [1, "a"]),
    (Array(Map(DataType.string)), [{"a": "x"}]),
    (Array(Object([Property("k", Array(DataType.double))])), [{"k": [1.0, 2.0]}]),
    (Object([Property("k", Array(DataType.double))]), {"k": [1.0, 2.0]}),
]


@pytest.mark.parametrize(("kind", "value"), ARRAYS)
def test_inputs_give_arrays_and_the_other_forms_lists(kind: Any, value: Any) -> None:
    of = signature([ColSpec(kind, "c")])
    is_array = isinstance(kind, Array)
    for payload, arrays in (
        ({"inputs": {"c": value}}, is_array),
        ({"inputs": [{"c": value}]}, is_array),
        ({"inputs": [{"c": value}, {"c": value}]}, is_array),
        ({"dataframe_records": [{"c": value}]}, False),
        ({"dataframe_split": {"columns": ["c"], "data": [[value]]}}, False),
    ):
        theirs, ours = seen_in_mlflow(of, payload).data, seen_in_tidemill(of, payload).data
        assert [repr(cell) for cell in ours["c"]] == [repr(cell) for cell in theirs["c"]]
        assert isinstance(ours["c"][0], np.ndarray) == arrays


@pytest.mark.parametrize(
    ("kind", "value", "inside"),
    [
        (DataType.integer, 3, np.int32(3)),
        (DataType.float, 1.5, np.float32(1.5)),
        (DataType.double, 3, np.float64(3)),
        (DataType.datetime, "2024-05-01T12:00:00+02:00", pd.Timestamp("2024-05-01T10:00:00")),
    ],
)
@pytest.mark.parametrize("rows", [1, 300])
def test_nested_values_which_mlflow_cannot_read_from_json(kind: Any, value: Any, inside: Any, rows: int) -> None:

    def listed(values: list[Any]) -> Any:
        # A Python list has no numpy types; MLflow checks an array by its type, and leaves it an array.
        if kind is DataType.double:
            return [float(value) for value in values]
        return pd.Series(values).to_numpy("datetime64[ns]") if kind is DataType.datetime else np.array(values)

    for of, given, expected in (
        (Object([Property("p", kind)]), {"p": value}, {"p": inside}),
        (Map(kind), {"k": value}, {"k": inside}),
        (Array(kind), [value, value], listed([inside, inside])),
        (Array(Array(kind)), [[value]], [listed([inside])]),
    ):
        payload = {"dataframe_records": [{"c": given}] * rows}
        with pytest.raises(MlflowException):
            seen_in_mlflow(signature([ColSpec(of, "c")]), payload)
        found = seen_in_tidemill(signature([ColSpec(of, "c")]), payload).data["c"][rows - 1]
        assert repr(found) == repr(expected)


PARAMS: list[tuple[Any, list[Any], list[Any]]] = [
    (ParamSpec("p", "long", 1), [3, None, -1], [3.5, True, "3", [1]]),
    (ParamSpec("p", "integer", 1), [3], [3.5, "3"]),
    (ParamSpec("p", "double", 1.0), [3, 3.5, None], [True, "3"]),
    (ParamSpec("p", "float", 1.0), [3, 0.1], ["a"]),
    (ParamSpec("p", "boolean", True), [False], [1, "a"]),
    (ParamSpec("p", "string", "a"), ["b", None], [1, ["a"]]),
    (
        ParamSpec("p", "datetime", np.datetime64("2024-05-01")),
        ["2024-05-02", "2024-05-02T10:00:00", "2024-05-02 10:00", "2024-05-02T10:00:00Z"],
        ["x", 3, "2024-05-02T10:00:00.123456789"],
    ),
    (ParamSpec("p", "datetime", np.datetime64("2024-05-01T10:00:00")), ["2024-05-02"], []),
    (ParamSpec("p", "long", [1, 2], (-1,)), [[3], [], [1, None]], [3, None, [1, 1.5], ["a"]]),
    (ParamSpec("p", "double", [1.5], (-1,)), [[1, 2]], ["a", {"a": 1}]),
    (
        ParamSpec("p", Object([Property("a", DataType.long), Property("b", DataType.string, False)]), {"a": 1}),
        [{"a": 2}, {"a": 2, "b": "x"}, {"a": 2, "b": None}],
        [{"b": "x"}, {"a": 1, "z": 1}, None, {"a": "q"}, [1]],
    ),
]


@pytest.mark.parametrize(("spec", "good", "bad"), PARAMS)
def test_parameters_are_checked_and_converted_alike(spec: Any, good: list[Any], bad: list[Any]) -> None:
    of = signature([ColSpec("double", "x")], [spec, ParamSpec("other", "string", "default")])
    body = {"dataframe_records": [{"x": 1.0}]}
    for params in ({}, None, *({"p": value} for value in good), {"other": "b"}):
        theirs, ours = (seen(of, {**body, "params": params}).params for seen in (seen_in_mlflow, seen_in_tidemill))
        assert repr(sorted(ours.items())) == repr(sorted(theirs.items()))
    assert sorted(seen_in_tidemill(of, body).params) == sorted(seen_in_tidemill(of, "x\n1\n").params) == ["other", "p"]
    for value in bad:
        payload = {**body, "params": {"p": value}}
        with pytest.raises(MlflowException):
            seen_in_mlflow(of, payload)
        with pytest.raises(Problem) as caught:
            seen_in_tidemill(of, payload)
        (error,) = caught.value.errors
        assert error.field == "params.p"
        assert "the model takes p, other" in error.message


def test_unknown_parameters_are_refused_which_mlflow_ignores() -> None:
    body = {"dataframe_records": [{"x": 1.0}], "params": {"q": 1}}
    some, none = (signature([ColSpec("double", "x")], specs) for specs in ([ParamSpec("p", "long", 1)], None))
    assert seen_in_mlflow(some, body).params == {"p": 1}
    assert seen_in_mlflow(none, body).params == {}
    for of, text in ((some, "the model takes p"), (none, "the model takes no parameters")):
        with pytest.raises(Problem) as caught:
            seen_in_tidemill(of, body)
        assert [(error.field, error.message) for error in caught.value.errors] == [
            ("params.q", f"unknown parameter; {text}")
        ]
    with pytest.raises(Problem):
        seen_in_tidemill(some, {**body, "params": [1]})
    assert seen_in_tidemill(none, {**body, "params": {}}).params is None


def test_a_model_owns_its_parameters() -> None:
    of = signature([ColSpec("double", "x")], [ParamSpec("p", "long", [1, 2], (-1,))])
    body = {"dataframe_records": [{"x": 1.0}]}
    seen_in_tidemill(of, body).params["p"].append(3)
    assert seen_in_tidemill(of, body).params == {"p": [1, 2]}


def tensor(dtype: str, shape: tuple[int, ...], name: str | None = None) -> Any:
    return TensorSpec(np.dtype(dtype), shape, name)


PAIR = [tensor("float64", (-1, 2), "a"), tensor("int64", (-1,), "b")]
IMAGE = [tensor("float32", (1, 2, 2))]
MATRIX = [tensor("float64", (-1, 2))]


@pytest.mark.parametrize(
    ("specs", "payload"),
    [
        (PAIR, {"inputs": {"a": [[1, 2], [3, 4]], "b": [1, 2, 3]}}),
        (PAIR, {"inputs": {"a": [[1, 2], [3, 4]], "b": [5]}}),
        (PAIR, {"inputs": {"a": [[1, 2]], "b": [1]}}),
        (PAIR, {"inputs": {"a": [[1, 2]], "b": [1.0], "zz": [1]}}),
        (PAIR, {"instances": [{"a": [1, 2], "b": 1}, {"a": [3, 4], "b": 2}]}),
        (PAIR, {"dataframe_split": {"columns": ["a", "b"], "data": [[[1, 2], 3], [[4, 5], 6]]}}),
        (PAIR, {"dataframe_records": [{"a": [1, 2], "b": 3}]}),
        ([tensor("object", (-1,))], {"inputs": ["a", 1, None, {"x": 1}]}),
        ([tensor("object", (-1,))], {"inputs": [[1, 2], [3]]}),
        ([tensor("object", (-1,))], {"instances": ["a"]}),
        ([tensor("object", (-1, 2))], {"inputs": [["a", 1], ["b", None]]}),
        ([tensor("object", (-1,), "o"), tensor("int64", (-1,), "n")], {"inputs": {"o": ["a", 1.5], "n": [1, 2]}}),
        ([tensor("str", (-1,))], {"inputs": ["a", "bc"]}),
        (IMAGE, {"inputs": [[[1, 2], [3, 4]]]}),
        (IMAGE, {"instances": [[[1, 2], [3, 4]]]}),
        ([tensor("float32", (2,))], {"inputs": [1, 2]}),
        (MATRIX, {"inputs": [[1, 2]]}),
        (MATRIX, {"dataframe_split": {"data": [[1, 2], [3, 4]]}}),
        (MATRIX, {"dataframe_split": {"columns": ["x", "y"], "data": [[1, 2], [3, 4]], "index": [5, 6]}}),
        (MATRIX, {"dataframe_records": [{"x": 1, "y": 2}]}),
        (MATRIX, {"dataframe_split": {"columns": ["x"], "data": [[[1, 2]], [[3, 4]]]}}),
        ([tensor("float32", (-1, 2, 2))], {"dataframe_split": {"columns": ["x"], "data": [[[1, 2, 3, 4]]]}}),
        ([tensor("float64", (-1, 1))], {"dataframe_split": {"columns": ["x"], "data": [[1], [2]]}}),
        ([tensor("float64", (-1, 2), "a")], {"inputs": [[1, 2]]}),
        ([tensor("int32", (-1,))], {"inputs": [1.0, 2]}),
    ],
)
def test_tensors_are_the_same(specs: list[Any], payload: Any) -> None:
    same(signature(specs), payload)


@pytest.mark.parametrize(
    ("specs", "payload"),
    [
        (IMAGE, {"inputs": [[[1, 2], [3, 4]], [[1, 2], [3, 4]]]}),
        ([tensor("float32", (2,))], {"inputs": [1]}),
        (PAIR, {"inputs": {"a": [[1, 2]]}}),
        (MATRIX, {"inputs": [[1, 2, 3]]}),
        (MATRIX, {"dataframe_split": {"data": [[1, 2, 3]]}}),
        ([tensor("float64", (-1, -1))], {"inputs": [[1, 2], [3]]}),
    ],
)
def test_tensors_that_mlflow_refuses_are_refused(specs: list[Any], payload: Any) -> None:
    with pytest.raises(MlflowException):
        seen_in_mlflow(signature(specs), payload)
    with pytest.raises(Problem) as caught:
        seen_in_tidemill(signature(specs), payload)
    assert caught.value.status == 422


def test_lists_in_an_object_tensor_stay_lists() -> None:
    of, payload = signature([tensor("object", (-1,))]), {"inputs": [[1, 2], [3, 4]]}
    # numpy makes a matrix of lists that happen to be equally long.
    assert seen_in_mlflow(of, payload).data.shape == (2, 2)
    assert seen_in_tidemill(of, payload).data.tolist() == [[1, 2], [3, 4]]
    assert seen_in_tidemill(of, payload).data.shape == (2,)


def test_object_tensors_pass_through_arrow() -> None:
    contract = contract_of(signature([tensor("object", (-1, 2), "o"), tensor("object", (-1,), "p")]))
    body = b'{"inputs": {"o": [["a", 1], [null, {"x": [1]}]], "p": [[1, 2], [3, 4]]}}'
    batch = read_json(contract, body, LIMITS)
    columnar = replace(batch, values=contract.to_record_batch(batch))
    for form in (batch, columnar, replace(batch, values=contract.to_tuples(columnar))):
        arrays = contract.to_pandas(form)
        assert arrays["o"].tolist() == [["a", 1], [None, {"x": [1]}]]
        assert (arrays["p"].shape, arrays["p"].tolist()) == ((2,), [[1, 2], [3, 4]])


def test_tensors_of_different_lengths_are_one_request() -> None:
    contract = contract_of(signature(PAIR))
    batch = read_json(contract, b'{"inputs": {"a": [[1, 2], [3, 4]], "b": [1, 2, 3]}}', LIMITS)
    assert batch.rows == 1
    assert not batch.mergeable_with(batch)
    assert contract.to_arrow(batch).to_pylist() == [{"a": None, "b": None}]
    contract.to_pandas(batch)["b"][:] = 0
    assert contract.to_pandas(batch)["b"].tolist() == [1, 2, 3], "the model gets a copy"


class Item(pydantic.BaseModel):
    a: int
    b: float | None = None
    t: list[str] = []


HINTS: list[tuple[Any, Any]] = [
    (list[Item], [{"a": 1}, {"a": 2, "b": 1.5, "t": ["x"]}, {"a": 1, "b": None}, {"a": 1, "further": 3}]),
    (list[list[float]], [[1.0, 2.5], [3.5]]),
    (list[dict[str, float]], [{"x": 1.5, "y": 2.5}, {}]),
    (list[str], ["a", "b"]),
    (list[int], [1, 2]),
    (list[dict[str, Any]], [{"x": 1, "y": ["a", None]}]),
    (list[Any], [1, "a", None, {"x": [1]}]),
]


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")
@pytest.mark.parametrize(("hint", "values"), HINTS)
@pytest.mark.parametrize("rows", [1, 300])
def test_a_model_with_a_type_hint_gets_the_same_values(hint: Any, values: list[Any], rows: int) -> None:
    of = _infer_schema_from_list_type_hint(hint)
    contract = Contract.from_json(json.loads(json.dumps(Contract.of(of, hinted=True).to_json())))
    payload = (values * rows)[: max(rows, len(values))]
    for layout in ("inputs", "instances"):
        batch = read_json(contract, json.dumps({layout: payload}).encode(), LIMITS)
        data = contract.to_pandas(batch)
        assert repr(data) == repr(payload)
        assert repr(_convert_data_to_type_hint(data, hint)) == repr(_convert_data_to_type_hint(payload, hint))
    columnar = replace(batch, values=contract.to_record_batch(batch))
    assert repr(contract.to_pandas(columnar)) == repr(payload)
