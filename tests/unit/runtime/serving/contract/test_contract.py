"""What a body may be: the signature as a contract, read strictly; labels; what a next version must keep."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, SparkMLVector
from tidemill.runtime.common.ids import uuid7
from tidemill.runtime.common.target import Target
from tidemill.runtime.serving.contract.columns import InvalidValueError
from tidemill.runtime.serving.contract.model_contract import Column, Contract, Kind
from tidemill.runtime.serving.contract.params import params_of
from tidemill.runtime.serving.http.errors import Problem
from tidemill.runtime.serving.inference.batch import Batch
from tidemill.runtime.serving.protocols.mlflow import read_json
from tidemill.runtime.serving.recording.labels import label_table, outside_range
from tidemill.runtime.serving.settings import LimitSettings

CONTRACT = Contract(
    (
        Column("distance", "double"),
        Column("temp", "double", required=False),
        Column("carrier", "string"),
        Column("seats", "long"),
        Column("night", "boolean"),
        Column("built", "datetime", required=False),
        Column("small", "integer", required=False),
        Column("half", "float", required=False),
    )
)
ROW: dict[str, Any] = {"distance": 1.5, "carrier": "UA", "seats": 3, "night": False, "small": 1}


def records(**changes: Any) -> bytes:
    row = {key: value for key, value in (ROW | changes).items() if value is not ...}
    return json.dumps({"dataframe_records": [row]}).encode()


def read(body: bytes, contract: Contract = CONTRACT, **limits: int) -> Batch:
    return read_json(contract, body, LimitSettings(**{"rows": 10, **limits}))


def test_a_good_body_becomes_the_frame_the_model_wants() -> None:
    batch = read(records(distance=2, temp=None, built="2013-07-01T02:00:00+02:00", seats=2**62))
    frame = CONTRACT.to_pandas(batch)
    # The row has no `half`, so the model gets none.
    assert list(frame.columns) == [column.name for column in CONTRACT.columns[:-1]]
    assert [str(kind) for kind in frame.dtypes] == [
        "float64", "float64", "str", "int64", "bool", "datetime64[ns]", "int32",
    ]  # fmt: skip
    assert (frame["distance"][0], frame["seats"][0], str(frame["built"][0])) == (2.0, 2**62, "2013-07-01 00:00:00")
    assert np.isnan(frame["temp"][0])
    assert CONTRACT.to_arrow(batch).to_pylist()[0]["temp"] is None


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        (b"", 400, None),
        (b"[1]", 400, None),
        (b'"dataframe_records"', 400, None),
        (b"\xff\xfe{\x00}\x00", 400, None),
        (b"[" * 100_000, 400, None),
        (b'{"a": ' + b"9" * 5000 + b"}", 400, None),
        (records(distance=float("inf")), 400, None),
        (records(distance=float("nan")), 400, None),
        (records().replace(b"1.5", b"1e999"), 422, "dataframe_records[0].distance"),
        (records(distance=10**400), 422, "dataframe_records[0].distance"),
        (records(half=1e39), 422, "dataframe_records[0].half"),
        (records(distance="1.5"), 422, "dataframe_records[0].distance"),
        (records(distance=True), 422, "dataframe_records[0].distance"),
        (records(distance=None), 422, "dataframe_records[0].distance"),
        (records(distance=...), 422, "dataframe_records[0].distance"),
        (records(distance=[1.5]), 422, "dataframe_records[0].distance"),
        (records(seats=3.5), 422, "dataframe_records[0].seats"),
        (records(seats=2**63), 422, "dataframe_records[0].seats"),
        (records(seats=True), 422, "dataframe_records[0].seats"),
        (records(seats=None), 422, "dataframe_records[0].seats"),
        (records(night=0), 422, "dataframe_records[0].night"),
        (records(carrier=1), 422, "dataframe_records[0].carrier"),
        (records(carrier="\ud800"), 422, "dataframe_records[0].carrier"),
        (records(built="2013-07"), 422, "dataframe_records[0].built"),
        (records(built="01/07/2013"), 422, "dataframe_records[0].built"),
        (records(built="2013-07-01T00:00:00.0000001"), 422, "dataframe_records[0].built"),
        (records(built=1372636800000), 422, "dataframe_records[0].built"),
        (records(built="9999-12-31T23:59:59-14:00"), 422, "dataframe_records[0].built"),
        (b'{"dataframe_records": []}', 422, "dataframe_records"),
        (b'{"dataframe_records": {"distance": [1]}}', 422, "dataframe_records"),
        (b'{"dataframe_records": [1]}', 422, "dataframe_records[0]"),
        (b'{"inputs": [[1]]}', 422, "inputs[0]"),
        (b'{"instances": [1]}', 422, "instances[0]"),
        (b'{"inputs": {"distance": [1], "seats": [1, 2]}}', 422, "inputs.seats"),
        (b'{"inputs": {"distance": {"a": 1}, "seats": [1]}}', 422, "inputs.distance"),
        (b'{"inputs": {"distance": 1, "seats": [1]}}', 422, "inputs.carrier"),
        (b'{"inputs": {"distance": 1}}', 422, "inputs[0].carrier"),
        (records()[:-1] + b', "params": {"a": 1}}', 422, "params.a"),
        (records()[:-1] + b', "colour": 1}', 422, "colour"),
        (records()[:-1] + b', "dataframe_records": []}', 400, "dataframe_records"),
        (records().replace(b'"seats"', b'"seats": 4, "seats"'), 400, "seats"),
        (b"{}", 422, "dataframe_records"),
        (b'{"dataframe_records": [{}], "dataframe_split": {}}', 422, "dataframe_split"),
        (json.dumps({"dataframe_records": [ROW] * 11}).encode(), 413, None),
        (json.dumps({"dataframe_records": [ROW], "event_time": "today"}).encode(), 422, "event_time"),
        (json.dumps({"dataframe_records": [ROW], "event_time": []}).encode(), 422, "event_time"),
        (json.dumps({"dataframe_records": [ROW], "event_time": [3]}).encode(), 422, "event_time[0]"),
        (b'{"dataframe_split": []}', 422, "dataframe_split"),
        (b'{"dataframe_split": {"columns": "distance", "data": []}}', 422, "dataframe_split.columns"),
        (
            b'{"dataframe_split": {"columns": ["distance", "distance"], "data": [[1, 2]]}}',
            422,
            "dataframe_split.columns[1]",
        ),
        (b'{"dataframe_split": {"columns": ["distance"], "data": [[1, 2]]}}', 422, "dataframe_split.data[0]"),
        (b'{"dataframe_split": {"columns": ["distance"], "data": [[1]]}}', 422, "dataframe_split.columns.carrier"),
        (
            json.dumps({"dataframe_split": {"columns": list(ROW), "data": [[1, "UA", "x", True, 1]]}}).encode(),
            422,
            "dataframe_split.data[0][2]",
        ),
    ],
)
def test_bad_bodies_are_refused_and_the_field_is_named(body: bytes, status: int, named: str | None) -> None:
    with pytest.raises(Problem) as caught:
        read(body)
    assert caught.value.status == status
    assert (named is None) or named in [error.field for error in caught.value.errors]
    assert json.loads(bytes(caught.value.response().body))["detail"]


def test_event_times_may_differ_by_row() -> None:
    times = ["2013-07-01T12:00:00z", "2013-07-01 12:00:00.5-04:00"]
    batch = read(json.dumps({"dataframe_records": [ROW, ROW], "event_time": times}).encode())
    assert batch.event_times
    assert [moment.isoformat() for moment in batch.event_times] == [
        "2013-07-01T12:00:00+00:00",
        "2013-07-01T16:00:00.500000+00:00",
    ]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ([], [], None),
        ([("a", "long", True)], [("a", "double", True)], None),
        ([("a", "double", True)], [("a", "double", False), ("b", "double", False)], None),
        ([("a", "double", True), ("b", "long", True)], [("b", "long", True), ("a", "double", True)], None),
        ([("a", "double", True)], [("a", "long", True)], "column a changed from double to long"),
        ([("a", "double", False)], [("a", "double", True)], "column a may no longer be null"),
        ([("a", "double", True)], [], "column a was removed"),
        ([], [("b", "double", True)], "column b is new and required"),
        ([], [("b", "long", False)], None),
    ],
)
def test_a_next_version_must_take_what_the_last_one_took(
    old: list[tuple[str, Kind, bool]], new: list[tuple[str, Kind, bool]], reason: str | None
) -> None:
    before, after = (Contract(tuple(Column(*column) for column in columns)) for columns in (old, new))
    assert after.incompatibilities(before) == ([reason] if reason else [])


def test_tensors_json_and_unnamed_columns_must_stay_too() -> None:
    def tensor(*shape: int, dtype: str = "float32") -> Contract:
        return Contract((Column("x", "tensor", dtype=dtype, shape=shape),))

    assert tensor(-1, 4).incompatibilities(tensor(-1, 4)) == []
    assert tensor(-1, -1).incompatibilities(tensor(-1, 4)) == []
    assert tensor(-1, 4).incompatibilities(tensor(-1, 5)) == [
        "column x changed from float32 of shape [-1, 5] to float32 of shape [-1, 4]"
    ]
    assert tensor(-1, 4, dtype="float64").incompatibilities(tensor(-1, 4))
    assert tensor(-1, 4).incompatibilities(tensor(-1))
    listed, anything = (
        Contract((Column("x", "json", spec=spec),))
        for spec in ({"type": "array", "items": {"type": "double"}}, {"type": "any"})
    )
    assert anything.incompatibilities(listed) == []
    assert listed.incompatibilities(anything)
    one, two = (
        Contract(tuple(Column(str(at), "double", required=at == 0) for at in range(count)), named=False)
        for count in (1, 2)
    )
    assert two.incompatibilities(one) == ["the number of columns changed from 1 to 2"]
    assert one.incompatibilities(Contract(one.columns)) == ["the columns no longer have names"]
    assert Contract(one.columns).incompatibilities(one) == ["the columns now have names"]


@pytest.mark.parametrize(
    ("before", "after", "reasons"),
    [
        (None, [("k", "long", 1, None)], []),
        ([("k", "long", 1, None)], [("k", "long", 2, None), ("new", "string", "a", None)], []),
        ([("k", "integer", 1, None)], [("k", "double", 1.0, None)], []),
        ([("k", "long", 1, None)], None, ["parameter k was removed"]),
        ([("k", "double", 1.0, None)], [("k", "long", 1, None)], ["parameter k changed from double to long"]),
        ([("k", "long", 1, None)], [("k", "long", [1], [-1])], ["parameter k changed from long to a list of long"]),
    ],
)
def test_a_next_version_must_take_the_parameters_of_the_last_one(before: Any, after: Any, reasons: list[str]) -> None:
    old, new = (with_params(specs) for specs in (before, after))
    assert new.incompatibilities(old) == reasons


def with_params(specs: list[tuple[Any, ...]] | None) -> Contract:
    documents: list[dict[str, Any]] | None = None
    if specs is not None:
        documents = [dict(zip(("name", "type", "default", "shape"), spec, strict=True)) for spec in specs]
    return Contract((Column("x", "double"),), params=params_of(documents))


def test_parameters_of_another_version_are_converted() -> None:
    doubles, longs = with_params([("k", "double", 1.0, None)]), with_params([("k", "long", 7, None)])
    for given, expected in ((None, 7), ({"k": 3.0}, 3), ({"other": 1}, 7)):
        converted = longs.shared_params(given)
        assert converted is not None
        assert converted == {"k": expected}
        assert type(converted["k"]) is int
    assert with_params(None).shared_params({"k": 1.0}) is None
    with pytest.raises(InvalidValueError, match="k must be an integer"):
        longs.shared_params({"k": 0.5})
    assert [type(value) for value in (doubles.shared_params({"k": 2}) or {}).values()] == [float]


def test_a_signature_becomes_a_contract() -> None:
    schema = Schema(
        [
            ColSpec("double", "a"),
            ColSpec("binary", "b", required=False),
            ColSpec(Array(DataType.long), "c"),
            ColSpec(AnyType(), "d", required=False),
        ]
    )
    contract = Contract.of(schema)
    assert contract.columns[:2] == (Column("a", "double"), Column("b", "binary", required=False))
    assert [column.spec for column in contract.columns[2:]] == [
        {"type": "array", "items": {"type": "long"}},
        {"type": "any"},
    ]
    unnamed = Contract.of(Schema([ColSpec("double"), ColSpec("string")]))
    assert (unnamed.names, unnamed.named) == (("0", "1"), False)
    assert Contract.of(Schema([ColSpec("double", 0), ColSpec("string", 1)])) == unnamed  # type: ignore[arg-type]
    tensor = Contract.of(Schema([TensorSpec(np.dtype("float64"), (-1, 2))]))
    assert tensor.columns == (Column("input", "tensor", dtype="float64", shape=(-1, 2)),)
    years = Contract.of(Schema([ColSpec("double", 2019), ColSpec("double", "a")]))  # type: ignore[arg-type]
    assert years.columns == (Column("2019", "double", integer_name=True), Column("a", "double"))
    for each in (contract, unnamed, tensor, years):
        assert Contract.from_json(json.loads(json.dumps(each.to_json()))) == each
    for unfit in (
        None,
        Schema([ColSpec("double", "a"), ColSpec("double", "a")]),
        Schema([ColSpec("double", 3), ColSpec("double", "3")]),  # type: ignore[arg-type]
        Schema([ColSpec(SparkMLVector(), "v")]),
        Schema([TensorSpec(np.dtype("complex64"), (-1, 2))]),
        Schema([TensorSpec(np.dtype("float64"), ())]),
    ):
        with pytest.raises(ValueError):
            Contract.of(unfit)


def test_the_contract_needs_neither_pandas_nor_mlflow() -> None:
    code = (
        "import sys, tidemill.runtime.serving.protocols.mlflow\n"
        "heavy = {'pandas', 'mlflow', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


ANY = Contract(
    (
        Column("blob", "binary"),
        Column("list", "json", spec={"type": "array", "items": {"type": "double"}}),
        Column(
            "object",
            "json",
            required=False,
            spec={
                "type": "object",
                "properties": {
                    "a": {"type": "long", "required": True},
                    "b": {"type": "map", "values": {"type": "string"}, "required": False},
                },
            },
        ),
        Column("any", "json", required=False, spec={"type": "any"}),
    )
)


def test_bytes_and_json_values_are_read() -> None:
    row = {"blob": "AAH/", "list": [1, 2.5], "object": {"a": 1, "b": {"x": "y"}}, "any": [None, {"k": True}]}
    for document in ({"instances": [row, row]}, {"inputs": {key: [value, value] for key, value in row.items()}}):
        batch = read(json.dumps(document).encode(), ANY)
        assert batch.values == [(b"\x00\x01\xff", [1.0, 2.5], row["object"], row["any"])] * 2
        frame = ANY.to_pandas(batch)
        assert [str(kind) for kind in frame.dtypes] == ["object"] * 4
        assert ANY.to_tuples(Batch(2, ANY.to_record_batch(batch))) == batch.values


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"blob": "A"}, "blob"),
        ({"blob": "AAH_"}, "blob"),
        ({"list": [1, "2"]}, "list"),
        ({"list": [None]}, "list"),
        ({"list": {"a": 1}}, "list"),
        ({"list": None}, "list"),
        ({"object": {}}, "object"),
        ({"object": {"a": 1, "c": 1}}, "object"),
        ({"object": {"a": 1, "b": {"x": 1}}}, "object"),
        ({"object": [1]}, "object"),
        ({"any": 10**400}, "any"),
        ({"any": {"\udfff": 1}}, "any"),
    ],
)
def test_json_values_are_what_the_signature_says(change: dict[str, Any], where: str) -> None:
    row = {"blob": "AAH/", "list": [1], **change}
    with pytest.raises(Problem) as caught:
        read(json.dumps({"dataframe_records": [row]}).encode(), ANY)
    assert [error.field for error in caught.value.errors] == [f"dataframe_records[0].{where}"]


def test_unnamed_columns_are_told_by_their_place() -> None:
    contract = Contract((Column("0", "double"), Column("1", "string", required=False)), named=False)
    rows = [[1, "a"], [2.5, None]]
    for document in (
        {"dataframe_split": {"data": rows}},
        {"dataframe_split": {"data": rows, "columns": [0, 1], "index": [0, 1]}},
        {"dataframe_split": {"data": [row[::-1] for row in rows], "columns": ["1", "0"]}},
        {"dataframe_split": {"data": [row[::-1] for row in rows], "columns": [1, 0]}},
        {"dataframe_records": [{"0": 1, "1": "a"}, {"0": 2.5}]},
        {"instances": rows},
        {"inputs": rows},
        {"inputs": {"1": ["a", None], "0": [1, 2.5]}},
    ):
        batch = read(json.dumps(document).encode(), contract)
        assert batch.values == [(1.0, "a"), (2.5, None)], document
        assert list(contract.to_pandas(batch).columns) == [0, 1]
    for document, where in (
        ({"dataframe_split": {"data": [[1, "a"]], "columns": ["x", "1"]}}, "dataframe_split.columns.0"),
        ({"dataframe_split": {"data": [[1]]}}, "dataframe_split.data[0]"),
        ({"instances": [[1, "a"], {"0": 1}]}, "instances[1]"),
    ):
        with pytest.raises(Problem) as caught:
            read(json.dumps(document).encode(), contract)
        assert [error.field for error in caught.value.errors] == [where]


def test_one_column_may_come_as_bare_values() -> None:
    contract = Contract((Column("text", "string"),))
    for document in ({"inputs": ["a", "b"]}, {"instances": ["a", "b"]}, {"instances": [{"text": "a"}, {"text": "b"}]}):
        assert read(json.dumps(document).encode(), contract).values == [("a",), ("b",)]
    with pytest.raises(Problem):
        read(b'{"instances": ["a", ["b"]]}', contract)


def test_tensors_are_read_with_their_type_and_shape() -> None:
    contract = Contract((Column("input", "tensor", dtype="float32", shape=(-1, 2, 2)),), named=False)
    given = [[[1, 2], [3, 4.5]], [[0, 0], [0, 1]]]
    for document in (
        {"inputs": given},
        {"instances": given},
        {"inputs": {"input": given}},
        {"instances": [{"input": row} for row in given]},
    ):
        batch = read(json.dumps(document).encode(), contract)
        array = contract.to_pandas(batch)
        assert (array.dtype, array.tolist()) == (np.float32, given)
        assert contract.to_pandas(Batch(2, contract.to_record_batch(batch))).tolist() == given
    both = Contract(
        (Column("a", "tensor", dtype="int64", shape=(-1,)), Column("b", "tensor", dtype="str", shape=(-1, -1)))
    )
    arrays = both.to_pandas(read(b'{"inputs": {"a": [1, 2], "b": [["x"], ["y"]]}}', both))
    assert {name: array.tolist() for name, array in arrays.items()} == {"a": [1, 2], "b": [["x"], ["y"]]}
    assert (contract.mergeable, both.mergeable) == (True, False)
    fixed = Contract((Column("x", "tensor", dtype="bool", shape=(2,)),))
    assert not fixed.mergeable
    assert read(b'{"inputs": [true, false]}', fixed).rows == 2
    for body, of, status in (
        (b'{"inputs": [[1, 2]]}', contract, 422),
        (b'{"inputs": [[[1, 2], [3]]]}', contract, 422),
        (b'{"inputs": [[[1, 2], [3, "4"]]]}', contract, 422),
        (b'{"inputs": [[[1, 2], [3, 4e39]]]}', contract, 422),
        (b'{"inputs": [[[1, 2], [3, null]]]}', contract, 422),
        (b'{"inputs": {"a": [9223372036854775808], "b": [["x"]]}}', both, 422),
        (b'{"inputs": {"a": [1, 2], "b": [["x"], ["y", "z"]]}}', both, 422),
        (b'{"inputs": {"a": [1.5], "b": [["x"]]}}', both, 422),
        (b'{"inputs": [true]}', fixed, 422),
        (b'{"inputs": [1, 0]}', fixed, 422),
    ):
        with pytest.raises(Problem) as caught:
            read(body, of)
        assert caught.value.status == status, body


def test_limits_are_kept_on_every_way() -> None:
    contract = Contract((Column("a", "string"), Column("b", "json", required=False, spec={"type": "any"})))
    plain = Contract(contract.columns[:1])

    def status(document: Any, of: Contract, **limits: int) -> int:
        try:
            read(json.dumps(document).encode(), of, **limits)
        except Problem as problem:
            return problem.status
        return 200

    for of in (contract, plain):
        assert status({"instances": [{"a": "x" * 50}]}, of, text=50) == 200
        assert status({"instances": [{"a": "x" * 51}]}, of, text=50) == 422
        assert status({"instances": [{"a": "x"}] * 3}, of, rows=3) == 200
        assert status({"instances": [{"a": "x"}] * 4}, of, rows=3) == 413
        assert status({"instances": [{"a": "x"}]}, of, columns=1) == 200
        assert status({"instances": [{"a": "x", "c": 1}]}, of, columns=1) == 413
        assert status({"instances": [{"a": "x"}]}, of, depth=3) == 200
        assert status({"instances": [{"a": "x"}]}, of, depth=2) == 400
    nested: Any = 1
    for _ in range(5):
        nested = [nested]
    assert status({"instances": [{"a": "x", "b": nested}]}, contract, depth=8) == 200
    assert status({"instances": [{"a": "x", "b": nested}]}, contract, depth=7) == 400
    assert status({"instances": [{"a": "x", "b": ["x" * 51]}]}, contract, text=50) == 422


def test_many_rows_are_held_as_columns() -> None:
    contract = Contract((Column("a", "double"), Column("b", "string", required=False)))
    rows = [{"a": float(at), "b": None if at % 3 else str(at)} for at in range(300)]
    batch = read(json.dumps({"instances": rows}).encode(), contract, rows=300)
    assert isinstance(batch.values, pa.RecordBatch)
    assert batch.values.to_pylist() == rows
    frame = contract.to_pandas(batch)
    assert [str(kind) for kind in frame.dtypes] == ["float64", "str"]
    assert contract.to_pandas(Batch(300, contract.to_tuples(batch))).equals(frame)


def test_labels_are_read_as_strictly() -> None:
    request = str(uuid7())
    good = {"request_id": request, "row": 0, "label": 1}
    table = label_table({"labels": [good, good | {"row": 1, "label": 0.5}]}, 10)
    assert [(row["row"], row["label"]) for row in table.to_pylist()] == [(0, 1.0), (1, 0.5)]
    for change, field in (
        ({"request_id": "x"}, "request_id"),
        ({"request_id": None}, "request_id"),
        ({"row": -1}, "row"),
        ({"row": True}, "row"),
        ({"row": 2**31}, "row"),
        ({"label": True}, "label"),
        ({"label": None}, "label"),
        ({"label": float("inf")}, "label"),
        ({"label": 10**400}, "label"),
        ({"colour": 1}, "colour"),
    ):
        with pytest.raises(Problem) as caught:
            label_table({"labels": [good, good | change]}, 10)
        assert [error.field for error in caught.value.errors] == [f"labels[1].{field}"]
    for target, bad, allowed in (
        (Target(classes=(0.0, 1.0)), 7, True),
        (Target(classes=(0.0, 1.0)), 1e308, True),
        (Target(low=0.0, high=10.0), float("nan"), False),
    ):
        labels = {"labels": [good, good | {"label": bad}]}
        with pytest.raises(Problem) as caught:
            label_table(labels, 10, target=target, version="3")
        (error,) = caught.value.errors
        assert (caught.value.status, error.field) == (422, "labels[1].label")
        assert f"got {bad:g}" in error.message
        if allowed:
            assert label_table(labels, 10, target=target, allow_new=True).num_rows == 2
    table = label_table({"labels": [good, good | {"label": 1e308}]}, 10, target=Target(low=0.0, high=10.0), key="app")
    assert (outside_range(table, Target(low=0.0, high=10.0)), table["key"].to_pylist()) == (1, ["app", "app"])
    for document, status in (({}, 422), ({"labels": []}, 422), ({"labels": [1]}, 422), ({"labels": [good] * 11}, 413)):
        with pytest.raises(Problem) as caught:
            label_table(document, 10)
        assert caught.value.status == status
