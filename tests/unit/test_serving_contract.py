"""What a body may be: the signature as a contract, read strictly; labels; what a next version must keep."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from mlflow.types import ColSpec, Schema, TensorSpec
from tidemill.runtime.ids import uuid7
from tidemill.runtime.serving.contract import Column, Contract, Kind, parse_json
from tidemill.runtime.serving.labels import label_table
from tidemill.runtime.serving.problems import Problem

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


def read(body: bytes, limit: int = 10) -> Any:
    return CONTRACT.batch(parse_json(body), limit)


def test_a_good_body_becomes_the_frame_the_model_wants() -> None:
    batch = read(records(distance=2, temp=None, built="2013-07-01T02:00:00+02:00", seats=2**62))
    frame = CONTRACT.to_pandas(batch)
    assert list(frame.columns) == [column.name for column in CONTRACT.columns]
    assert [str(kind) for kind in frame.dtypes] == [
        "float64", "float64", "str", "int64", "bool", "datetime64[ns]", "int32", "float32",
    ]  # fmt: skip
    assert (frame["distance"][0], frame["seats"][0], str(frame["built"][0])) == (2.0, 2**62, "2013-07-01 00:00:00")
    assert np.isnan(frame["temp"][0])
    assert np.isnan(frame["half"][0])
    assert CONTRACT.to_arrow(batch.columns).to_pylist()[0]["temp"] is None


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
        (records(seats=3.0), 422, "dataframe_records[0].seats"),
        (records(seats=2**63), 422, "dataframe_records[0].seats"),
        (records(seats=True), 422, "dataframe_records[0].seats"),
        (records(small=None), 422, "dataframe_records[0].small"),
        (records(night=0), 422, "dataframe_records[0].night"),
        (records(carrier=1), 422, "dataframe_records[0].carrier"),
        (records(carrier="\ud800"), 422, "dataframe_records[0].carrier"),
        (records(built="2013-07-01"), 422, "dataframe_records[0].built"),
        (records(built="2013-07-01T00:00:00"), 422, "dataframe_records[0].built"),
        (records(built="9999-12-31T23:59:59-14:00"), 422, "dataframe_records[0].built"),
        (records(colour="red"), 422, "dataframe_records[0].colour"),
        (b'{"dataframe_records": []}', 422, "dataframe_records"),
        (b'{"dataframe_records": {"distance": [1]}}', 422, "dataframe_records"),
        (b'{"dataframe_records": [1]}', 422, "dataframe_records[0]"),
        (b'{"inputs": [[1]]}', 422, "inputs"),
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
        ([("a", "double", True)], [("a", "long", True)], "column a was double and is long"),
        ([("a", "double", False)], [("a", "double", True)], "column a may no longer be null"),
        ([("a", "double", True)], [], "column a is gone"),
        ([], [("b", "double", True)], "column b is new and required"),
        ([], [("b", "long", False)], "column b is new and required"),
    ],
)
def test_a_next_version_must_take_what_the_last_one_took(
    old: list[tuple[str, Kind, bool]], new: list[tuple[str, Kind, bool]], reason: str | None
) -> None:
    before, after = (Contract(tuple(Column(*column) for column in columns)) for columns in (old, new))
    assert after.why_not(before) == ([reason] if reason else [])


def test_only_signatures_with_plain_named_columns_are_served() -> None:
    schema = Schema([ColSpec("double", "a"), ColSpec("string", "b", required=False)])
    assert Contract.of(schema).columns == (Column("a", "double"), Column("b", "string", required=False))
    for unfit in (None, Schema([ColSpec("double")]), Schema([ColSpec("binary", "a")])):
        with pytest.raises(ValueError):
            Contract.of(unfit)
    with pytest.raises(ValueError):
        Contract.of(Schema([TensorSpec(np.dtype("float64"), (-1, 2))]))


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
    for document, status in (({}, 422), ({"labels": []}, 422), ({"labels": [1]}, 422), ({"labels": [good] * 11}, 413)):
        with pytest.raises(Problem) as caught:
            label_table(document, 10)
        assert caught.value.status == status
