"""Captured rows of every form of answer, and labels of rows, of whole requests and of single outputs."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tidemill.runtime.capture import (
    CAPTURE,
    LABEL_SCHEMA,
    LABELS,
    find,
    forget,
    join_labels,
    list_segments,
    read_capture,
    read_labels,
    schema_version,
    write_segment,
)
from tidemill.runtime.capture.columns import Privacy
from tidemill.runtime.common.ids import uuid7
from tidemill.runtime.common.target import Target
from tidemill.runtime.monitor.labels import LabelBook
from tidemill.runtime.monitor.settings import MonitoredModel
from tidemill.runtime.monitor.window import Window
from tidemill.runtime.serving.engines.outputs import Answer, as_request, binary_scores, normalise
from tidemill.runtime.serving.engines.prepared import output_type
from tidemill.runtime.serving.http.errors import Problem
from tidemill.runtime.serving.recording.labels import label_table, outside_range
from tidemill.runtime.serving.recording.rows import CapturedRequest, segment_schema, to_record_batch

from tests.support.captured import captured, served_model, write_labels, write_traffic

NAN, INF = math.nan, math.inf
BIG = 2**53 + 1


def model_of(sample: Any, output: str = "prediction") -> Any:
    kind = output_type(output, sample)  # type: ignore[arg-type]
    return served_model("1", output=output, of=kind.field(0).type)


def batch_of(model: Any, items: list[CapturedRequest]) -> pa.RecordBatch:
    return to_record_batch(items, segment_schema(model, Privacy()), Privacy())


FORMS: list[tuple[str, Any, str, list[Any]]] = [
    ("score", binary_scores(np.array([[0.25, 0.75], [0.1, NAN]])), "score", [0.75, NAN]),
    ("scores", normalise(np.array([[0.25, 0.5, 0.25], [1, 0, 0]]), 2), "scores", [[0.25, 0.5, 0.25], [1.0, 0.0, 0.0]]),
    ("floats", normalise(np.array([1.5, INF]), 2), "prediction", [1.5, INF]),
    ("integers", normalise(np.array([1, BIG]), 2), "prediction", [1, BIG]),
    ("texts", normalise(["a", "b"], 2), "prediction", ["a", "b"]),
    ("series", normalise(pd.Series([1, BIG], name="n"), 2), "prediction", [1, BIG]),
    (
        "frame",
        normalise(pd.DataFrame({"n": [1, BIG], "x": [NAN, 2.0], "s": ["a", None]}), 2),
        "prediction",
        [{"n": 1, "x": NAN, "s": "a"}, {"n": BIG, "x": 2.0, "s": None}],
    ),
    (
        "targets",
        normalise([np.array([[0.25, 0.75], [1.0, 0.0]]), np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])], 2),
        "prediction",
        [[[0.25, 0.75], [0.5, 0.25, 0.25]], [[1.0, 0.0], [0.0, 0.0, 1.0]]],
    ),
    ("mapping", normalise({"a": [1, 2], "b": ["x", "y"]}, 2), "prediction", [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
    ("cube", normalise(np.arange(4).reshape(2, 1, 2), 2), "prediction", [[[0, 1]], [[2, 3]]]),
    ("mixed", normalise([1, "x"], 2), "prediction", ["1", "x"]),
    ("nested", normalise([{"a": [{"b": NAN}]}, {"a": []}], 2), "prediction", ['{"a": [{"b": null}]}', '{"a": []}']),
]


@pytest.mark.parametrize(("outputs", "output", "values"), [case[1:] for case in FORMS], ids=[case[0] for case in FORMS])
def test_answers_by_row_are_captured_with_each_row(outputs: Any, output: str, values: list[Any]) -> None:
    model = model_of(outputs, output)
    one = captured(2, model=model, outputs=outputs)
    several = [captured(2, model=model, outputs=outputs), captured(1, model=model, outputs=outputs[:1])]
    for items, expected in (([one], values), (several, [*values, values[0]])):
        batch = batch_of(model, items)
        assert repr(batch["outputs"].field(0).to_pylist()) == repr(expected)
        assert batch["outputs"].null_count == 0
        assert batch["answer"].null_count == len(expected)


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        (normalise(pd.Series([0.0, 1.0, NAN]), 2), '[{"0": 0.0}, {"0": 1.0}, {"0": null}]'),
        (normalise(pd.DataFrame({"day": ["mo"], "n": [BIG]}), 2), f'[{{"day": "mo", "n": {BIG}}}]'),
        (normalise(7, 2), "7"),
        (normalise([], 2), "[]"),
        (normalise({"low": [1.0], "high": [2.0, 3.0]}, 2), '{"low": [1.0], "high": [2.0, 3.0]}'),
        (as_request(normalise(np.array([1.0, 2.0]), 2)), "[1.0, 2.0]"),
    ],
)
def test_an_answer_of_a_request_is_captured_once_as_json(outputs: Any, text: str) -> None:
    model = model_of(as_request(outputs))
    batch = batch_of(model, [captured(2, model=model, outputs=outputs)])
    assert batch["outputs"].null_count == 2
    assert batch["answer"].to_pylist() == [text, None]
    assert batch["row"].to_pylist() == [0, 1]


def test_requests_with_and_without_an_answer_for_each_row_share_a_segment() -> None:
    model = model_of(normalise(np.array([1.0]), 1))
    items = [
        captured(2, model=model, outputs=[1.0, 2.0]),
        captured(2, model=model, outputs=normalise([1.0, 2.0, 3.0], 2)),
        captured(1, model=model, outputs=[4.0]),
    ]
    batch = batch_of(model, items)
    assert batch["outputs"].to_pylist() == [{"prediction": 1.0}, {"prediction": 2.0}, None, None, {"prediction": 4.0}]
    assert batch["answer"].to_pylist() == [None, None, "[1.0, 2.0, 3.0]", None, None]


@pytest.mark.parametrize(
    ("sample", "outputs", "text"),
    [
        (normalise(np.array([1]), 1), [1, 2.5], "[1, 2.5]"),
        (normalise(np.array([1.0]), 1), ["a", 1.0], '["a", 1.0]'),
        (
            normalise(pd.DataFrame({"a": [1]}), 1),
            normalise(pd.DataFrame({"a": [1, 2], "b": [3, 4]}), 2),
            '[{"a": 1, "b": 3}, {"a": 2, "b": 4}]',
        ),
        (normalise(np.array([1.0]), 1), np.ones((2, 2)), "[[1.0, 1.0], [1.0, 1.0]]"),
    ],
)
def test_outputs_of_another_type_than_the_samples_are_kept_as_json(sample: Any, outputs: Any, text: str) -> None:
    model = model_of(sample)
    fitting = captured(1, model=model, outputs=sample)
    batch = batch_of(model, [fitting, captured(2, model=model, outputs=outputs)])
    assert batch["answer"].to_pylist() == [None, text, None]
    assert [each.is_valid for each in batch["outputs"]] == [True, False, False]


def test_segments_say_their_version_and_are_read_with_those_of_version_1(tmp_path: Path) -> None:
    frame = pd.DataFrame({"distance": [1.0, 2.0]})
    now = [datetime.now(UTC)] * 2
    old = write_traffic(tmp_path, frame, now)
    write_labels(tmp_path, old, [0.0, 1.0])
    for path in tmp_path.glob("*/date=*/*.parquet"):
        table = pq.ParquetFile(path).read()
        assert schema_version(table.schema) == 2
        columns = [name for name in table.column_names if name not in ("answer", "output")]
        known = ("key", "client_request_id", "features")
        fields = [table.schema.field(name).with_nullable(name in known) for name in columns]
        pq.write_table(table.select(columns).cast(pa.schema(fields)), path)
    assert {schema_version(pq.read_schema(path)) for path in tmp_path.glob("*/date=*/*.parquet")} == {1}
    new = write_traffic(tmp_path, frame, now)
    write_labels(tmp_path, new, [1.0, 1.0])
    table, labels = read_capture(tmp_path), read_labels(tmp_path)
    assert table is not None
    assert (table.num_rows, table["answer"].null_count, schema_version(table.schema)) == (4, 4, 2)
    assert table["outputs"].null_count == 0
    assert (labels.num_rows, labels.schema.equals(LABEL_SCHEMA)) == (4, True)
    assert sorted(join_labels(table, labels)["label"].to_pylist()) == [0.0, 1.0, 1.0, 1.0]


def test_versions_with_outputs_of_different_types_are_read_together_as_json(tmp_path: Path) -> None:
    samples = [normalise(np.array([1.5]), 1), normalise(pd.DataFrame({"a": [BIG], "b": ["x"]}), 1)]
    for sample in samples:
        model = model_of(sample)
        batch = batch_of(model, [captured(1, model=model, outputs=sample)])
        write_segment(pa.Table.from_batches([batch]), tmp_path, CAPTURE)
    table = read_capture(tmp_path)
    assert table is not None
    found = [json.loads(row["prediction"]) for row in table["outputs"].to_pylist()]
    assert found == [1.5, {"a": BIG, "b": "x"}]


ID = str(uuid7())


def labels(*given: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    table = label_table({"labels": [{"request_id": ID, **label} for label in given]}, 10, **options)
    assert table.schema.equals(LABEL_SCHEMA, check_metadata=True)
    return [{key: row[key] for key in ("row", "label", "output")} for row in table.to_pylist()]


def test_labels_of_rows_requests_and_outputs() -> None:
    assert labels({"row": 1, "label": 2}) == [{"row": 1, "label": 2.0, "output": None}]
    assert labels({"row": None, "label": 2}) == [{"row": None, "label": 2.0, "output": None}]
    assert labels({"label": 2, "output": "day 1"}, needs_row=False) == [{"row": None, "label": 2.0, "output": "day 1"}]
    # The classes are those of a single output.
    target = Target(classes=(0.0, 1.0))
    assert labels({"row": 0, "label": 7, "output": "scores_1"}, target=target)[0]["label"] == 7.0
    table = label_table({"labels": [{"request_id": ID, "row": 0, "label": 7, "output": "x"}]}, 10)
    assert outside_range(table, Target(low=0.0, high=1.0)) == 0


@pytest.mark.parametrize(
    ("label", "field"),
    [
        ({"label": 1}, "row"),
        ({"label": 1, "row": -1}, "row"),
        ({"label": 1, "row": "0"}, "row"),
        ({"label": 1, "row": 0, "output": ""}, "output"),
        ({"label": 1, "row": 0, "output": 3}, "output"),
        ({"label": 1, "row": 0, "output": "x" * 201}, "output"),
    ],
)
def test_invalid_labels_are_refused_with_their_field(label: dict[str, Any], field: str) -> None:
    with pytest.raises(Problem) as refused:
        labels(label)
    assert [error.field for error in refused.value.errors] == [f"labels[0].{field}"]


def label_rows(ids: list[str]) -> pa.Table:
    now = datetime.now(UTC)
    rows = [
        {"request_id": ids[0], "row": 0, "label": 1.0},
        {"request_id": ids[0], "row": None, "label": 2.0},
        {"request_id": ids[0], "row": 0, "label": 3.0, "output": "scores_1"},
        {"request_id": ids[0], "row": None, "label": 4.0},
        {"request_id": ids[1], "row": 0, "label": 0.0},
    ]
    return pa.Table.from_pylist([{**row, "received_at": now} for row in rows], schema=LABEL_SCHEMA)


def test_only_labels_of_rows_are_joined_and_the_last_of_each_kind_counts(tmp_path: Path) -> None:
    ids = write_traffic(tmp_path, pd.DataFrame({"distance": [1.0, 2.0]}), [datetime.now(UTC)] * 2)
    write_segment(label_rows(ids), tmp_path, LABELS)
    kept = read_labels(tmp_path)
    assert sorted(kept["label"].to_pylist()) == [0.0, 1.0, 3.0, 4.0]
    table = read_capture(tmp_path)
    assert table is not None
    joined = {row["request_id"]: row["label"] for row in join_labels(table, kept).to_pylist()}
    assert joined == {ids[0]: 1.0, ids[1]: 0.0}


def test_the_monitor_counts_the_labels_that_it_does_not_compare(tmp_path: Path) -> None:
    ids = write_traffic(tmp_path, pd.DataFrame({"distance": [1.0, 2.0]}), [datetime.now(UTC)] * 2)
    write_segment(label_rows(ids), tmp_path, LABELS)
    book = LabelBook()
    assert len(book.add(label_rows(ids))) == 2
    assert (len(book), book.skipped) == (2, 3)
    window = Window(MonitoredModel(name="flights", data="r/b/p", target="late", capture=tmp_path, min_rows=2), "1")
    window.update()
    assert (window.labelled, window.labels_skipped) == (2, 3)
    assert window.labels().values.tolist() == [1.0, 0.0]


def test_a_window_has_no_predictions_for_answers_of_requests(tmp_path: Path) -> None:
    for output, by_row, whole in (
        ("score", [0.5], normalise([1.0, 2.0], 1)),
        ("scores", np.array([[0.2, 0.3, 0.5]]), normalise([1.0, 2.0], 1)),
    ):
        folder = tmp_path / output
        model = model_of(np.array([0.5]) if output == "score" else by_row, output)
        items = [captured(1, model=model, outputs=each) for each in (by_row, whole)]
        write_segment(pa.Table.from_batches([batch_of(model, items)]), folder, CAPTURE)
        window = Window(MonitoredModel(name="flights", data="r/b/p", target="late", capture=folder, min_rows=2), "1")
        window.update()
        found = window.predictions()
        assert found is not None and len(found) == 2
        assert np.isfinite(found.reshape(2, -1)).all(axis=1).tolist() == [True, False]


def test_answers_and_labels_of_a_request_are_forgotten_with_its_rows(tmp_path: Path) -> None:
    model = model_of(Answer("value", (), [7], None))
    item = captured(1, model=model, outputs=normalise([1.0, 2.0], 1), values=[(5.0, "UA")])
    write_segment(pa.Table.from_batches([batch_of(model, [item])]), tmp_path, CAPTURE)
    now = datetime.now(UTC)
    rows = [{"request_id": item.request_id, "row": None, "label": 2.0, "received_at": now}]
    write_segment(pa.Table.from_pylist(rows, schema=LABEL_SCHEMA), tmp_path, LABELS)
    [found] = find(tmp_path, item.request_id)
    assert json.loads(found.rows["answer"][0].as_py()) == [1.0, 2.0]
    gone = forget(tmp_path, "carrier", "UA")
    assert (gone.rows, gone.labels) == (1, 1)
    assert len(list_segments(tmp_path, LABELS)) == 1 and read_labels(tmp_path).num_rows == 0
