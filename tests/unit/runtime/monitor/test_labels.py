"""Labels of several senders: unusable labels are dropped, and no key outvotes or overwrites the others."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill.runtime.capture import LABEL_SCHEMA, LABELS, list_segments, read_capture, read_labels, write_segment
from tidemill.runtime.common.target import Target
from tidemill.runtime.monitor.capture_health import CaptureHealth
from tidemill.runtime.monitor.days import Days
from tidemill.runtime.monitor.key_share import cap_shares
from tidemill.runtime.monitor.labels import LabelBook
from tidemill.runtime.monitor.publishing import Publisher
from tidemill.runtime.monitor.settings import MonitoredModel
from tidemill.runtime.monitor.window import Window

from tests.support.captured import write_labels, write_traffic

START = datetime(2013, 6, 1, tzinfo=UTC)
BINARY = Target(classes=(0.0, 1.0))


def model(folder: Path, **values: Any) -> MonitoredModel:
    base: dict[str, Any] = {"name": "flights", "capture": folder, "data": "flights/main/departures", "target": "late"}
    return MonitoredModel.model_validate(base | {"label_delay": 86400.0, "min_rows": 10} | values)


def traffic(folder: Path, rows: int, *, day: int = 0, **more: Any) -> list[str]:
    times = [START + timedelta(days=day, seconds=index) for index in range(rows)]
    scores = np.random.default_rng(rows).random(rows).tolist()
    return write_traffic(folder, pd.DataFrame({"x": np.arange(rows, dtype="float64")}), times, scores=scores, **more)


def published(folder: Path, target: Target | None = BINARY, **values: Any) -> Any:
    days = Days(model(folder, **values), ())
    days.update()
    return days.labelled_rows(list(days.open.values()), target)


def raw_labels(folder: Path, values: dict[str, Any]) -> None:
    write_segment(pa.table(values), folder, LABELS)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [(7.0, "unknown_class"), (1e308, "unknown_class"), (math.nan, "not_finite"), (-math.inf, "not_finite"),
     ("late", "not_a_number"), (None, "not_a_number")],
)  # fmt: skip
def test_one_bad_label_never_hides_the_rest(tmp_path: Path, bad: Any, reason: str) -> None:
    ids = traffic(tmp_path, 60)
    labels = [float(index % 2) for index in range(60)]
    write_labels(tmp_path, ids[1:], labels[1:], key="app")
    before = Window(model(tmp_path), "1")
    before.update()
    whole = before.quality(10)
    kind = pa.string() if isinstance(bad, str) else pa.float64()
    raw_labels(
        tmp_path,
        {"request_id": ids[:1], "row": [0], "label": pa.array([bad], kind), "received_at": [datetime.now(UTC)]},
    )
    window = Window(model(tmp_path), "1")
    window.update()
    assert window.quality(10) == whole
    assert whole is not None
    assert whole.rows == 59
    assert window.labels(window.target(None)).dropped == {reason: 1}
    found = published(tmp_path)
    assert (found.table.num_rows, found.dropped) == (59, {reason: 1})
    assert found.table["late"].to_pylist() == [int(label) for label in labels[1:]]


def test_new_classes_are_published_where_they_are_allowed(tmp_path: Path) -> None:
    write_labels(tmp_path, traffic(tmp_path, 60), [0.0, 1.0, 2.0] * 20)
    found = published(tmp_path, allow_new_labels=True)
    assert (set(found.table["late"].to_pylist()), found.dropped) == ({0, 1, 2}, {})
    window = Window(model(tmp_path, allow_new_labels=True), "1")
    window.update()
    quality = window.quality(10)
    assert quality is not None
    assert quality.rows == 40, "the version has no score for the new class"


def test_numbers_outside_the_range_are_kept_and_counted(tmp_path: Path) -> None:
    write_labels(tmp_path, traffic(tmp_path, 20), [*([5.0] * 18), 1e308, -3.0])
    window = Window(model(tmp_path), "1")
    window.update()
    labels = window.labels(Target(low=0.0, high=10.0))
    assert (labels.outside, labels.dropped) == (2, {})
    found = published(tmp_path, Target(low=0.0, high=10.0))
    assert found.table.num_rows == 20
    assert found.table.schema.field("late").type == pa.float64(), "1e308 is no integer of the lake"


def test_a_key_cannot_replace_the_labels_of_another(tmp_path: Path) -> None:
    ids = traffic(tmp_path, 40, key="app")
    write_labels(tmp_path, ids, [1.0] * 40, key="app")
    write_labels(tmp_path, ids[:30], [0.0] * 30, key="attacker")
    found = published(tmp_path, max_share_per_key=1.0)
    assert (found.table["late"].to_pylist(), found.dropped) == ([1] * 10, {"disputed": 30})
    write_labels(tmp_path, ids[:10], [1.0] * 10, key="attacker")
    write_labels(tmp_path, ids[10:20], [0.0] * 10, key="app")
    found = published(tmp_path, max_share_per_key=1.0)
    assert sorted(found.table["late"].to_pylist()) == [0] * 10 + [1] * 20, "where both agree, nothing is disputed"
    window = Window(model(tmp_path), "1")
    window.update()
    assert window.labels(BINARY).dropped == {"disputed": 10}


def segment_of(*labels: tuple[str | None, float, float]) -> pa.Table:
    """Return a label segment for one row: (key, label, seconds)."""
    rows = [
        {"request_id": "a", "row": 0, "label": label, "received_at": START + timedelta(seconds=at), "key": key}
        for key, label, at in labels
    ]
    return pa.Table.from_pylist(rows, schema=LABEL_SCHEMA)


def judged(segments: Iterable[pa.Table]) -> tuple[Any, ...]:
    """Return what counts of a row whose label segments are read in this order."""
    book = LabelBook()
    row = [book.add(segment) for segment in segments][-1][0]
    label = book.get(row)
    assert label is not None
    return (repr(label.value), label.sender, label.received, label.problem)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_oldest_label_of_a_third_key_is_a_dispute_too(order: tuple[int, ...]) -> None:
    labels = [("a", 0.0, 1), ("b", 1.0, 2), ("c", 1.0, 3)]
    assert judged(segment_of(labels[index]) for index in order)[-1] == "disputed"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c", None]),
            st.sampled_from([0.0, 1.0, math.nan, math.inf]),
            st.integers(0, 4),
        ),
        min_size=1,
        max_size=6,
    ).flatmap(lambda labels: st.tuples(st.just(labels), st.permutations(labels)))
)
def test_the_order_in_which_segments_are_read_does_not_matter(
    case: tuple[list[tuple[str | None, float, float]], list[tuple[str | None, float, float]]],
) -> None:
    one, other = ([segment_of(label) for label in labels] for labels in case)
    assert judged(one) == judged(other)


def test_of_two_labels_in_one_request_the_last_counts() -> None:
    assert judged([segment_of(("a", 1.0, 1), ("a", 0.0, 1))])[0] == "0.0"


def test_the_key_that_sent_a_label_may_correct_it_and_unknown_keys_dispute_nothing(tmp_path: Path) -> None:
    ids = traffic(tmp_path, 20)
    write_labels(tmp_path, ids, [0.0] * 20)
    write_labels(tmp_path, ids, [1.0] * 20, key="app")
    write_labels(tmp_path, ids[:5], [0.0] * 5, key="app")
    found = published(tmp_path)
    assert (sum(found.table["late"].to_pylist()), found.dropped, found.labels) == (15, {}, {"app": 20})


def test_the_window_names_who_sent_what(tmp_path: Path) -> None:
    own, others = traffic(tmp_path, 30, key="web"), traffic(tmp_path, 10, key="batch")
    write_labels(tmp_path, own, [1.0] * 30, key="office")
    write_labels(tmp_path, others, [0.0] * 10)
    found = published(tmp_path)
    assert (found.predictions, found.labels, found.capped) == (
        {"batch": 10, "web": 30}, {"office": 30, "unknown": 10}, {},
    )  # fmt: skip
    window = Window(model(tmp_path), "1")
    window.update()
    assert (window.senders, window.labels(BINARY).senders) == (found.predictions, found.labels)


def test_a_flooding_key_is_capped_by_a_fair_sample(tmp_path: Path) -> None:
    honest, flood = traffic(tmp_path, 300), traffic(tmp_path, 2000)
    write_labels(tmp_path, honest, [1.0] * 300, key="app")
    write_labels(tmp_path, flood, [0.0] * 2000, key="attacker")
    found = published(tmp_path)
    assert (found.labels, found.capped) == ({"app": 300, "attacker": 300}, {"attacker": 1700})
    assert published(tmp_path).table.equals(found.table), "the same rows each time"
    kept = found.table.to_pandas().query("late == 0")["x"]
    assert kept.mean() == pytest.approx(1000, abs=150), "from the whole day, not from its start"
    assert published(tmp_path, max_share_per_key=1.0).capped == {}


@given(
    st.dictionaries(st.sampled_from("abcde"), st.integers(1, 60), min_size=1),
    st.integers(0, 30),
    st.floats(0.01, 1.0),
)
def test_no_key_has_more_than_its_share(counts: dict[str, int], unknown: int, share: float) -> None:
    senders = [name for name, count in counts.items() for _ in range(count)] + [None] * unknown
    order = np.random.default_rng(0).permutation(len(senders)).astype("uint64")
    capped = cap_shares(senders, order, share)
    kept = [sender for sender, keep in zip(senders, capped.kept, strict=True) if keep]
    assert kept.count(None) == unknown
    if len(counts) == 1:
        assert len(kept) == len(senders), "a single key has no cap"
        return
    allowed = max(share, 1 / len(counts))
    for name, count in counts.items():
        assert kept.count(name) <= allowed * len(kept) + 1e-6
        assert kept.count(name) + capped.dropped.get(name, 0) == count
    assert kept, "something is always left"


def test_segments_of_the_last_release_are_read(tmp_path: Path) -> None:
    ids = traffic(tmp_path, 20)
    write_labels(tmp_path, ids, [1.0] * 20)
    for path in tmp_path.glob("*/date=*/*.parquet"):
        table = pq.ParquetFile(path).read()
        gone = [name for name in ("key", "answer", "output") if name in table.column_names]
        pq.write_table(table.drop_columns(gone).replace_schema_metadata(), path)
    write_labels(tmp_path, traffic(tmp_path, 5, day=1, key="app"), [0.0] * 5, key="app")
    found = published(tmp_path)
    assert (found.table.num_rows, found.labels) == (25, {"app": 5, "unknown": 20})
    captured = read_capture(tmp_path)
    assert captured is not None
    assert (captured["key"].null_count, read_labels(tmp_path)["key"].null_count) == (20, 20)


def test_the_record_of_the_last_release_is_taken_over(tmp_path: Path) -> None:
    window = {
        "days": ["2013-06-03"], "name": "labelled-x.parquet", "rows": 7, "at": "2013-06-04T00:00:00Z",
        "commit": "c", "reasons": [], "head": None,
    }  # fmt: skip
    state = {"version": 1, "published": [window], "pending": None, "refused": [], "refusals": 2}
    (tmp_path / "state.json").write_text(json.dumps(state))
    publisher = Publisher(model(tmp_path), tmp_path)
    assert (publisher.state.refusals, publisher.state.published[0].labels) == (2, {})


def test_unreadable_segments_are_counted_and_the_others_are_read(tmp_path: Path) -> None:
    ids = traffic(tmp_path, 40)
    for part in range(4):
        write_labels(tmp_path, ids[part * 10 : part * 10 + 10], [1.0] * 10)
    first, second, third, _ = list_segments(tmp_path, LABELS)
    first.path.write_bytes(first.path.read_bytes()[:-20])
    second.path.write_bytes(b"")
    pq.write_table(pa.table({"request_id": ["a"], "label": [1.0]}), third.path)
    health = CaptureHealth(tmp_path)
    window, days = Window(model(tmp_path), "1", health=health), Days(model(tmp_path), (), health)
    window.update()
    days.update()
    assert window.labelled == days.open[START.date()].labelled == 10
    assert (health.unreadable("labels"), health.unreadable("capture")) == (3, 0)
    assert health.notes() == ["3 label segments cannot be read; the monitor's log names them"]
    for segment in (first, second, third):
        segment.path.unlink()
    assert health.unreadable("labels") == 0


def test_deleted_segments_are_counted_unless_their_time_was_over(tmp_path: Path) -> None:
    health = CaptureHealth(tmp_path, retention_days=7.0)
    for part in range(3):
        write_labels(tmp_path, traffic(tmp_path, 2, day=part), [1.0] * 2)
    health.check()
    write_labels(tmp_path, traffic(tmp_path, 2), [1.0] * 2)
    health.check()
    assert (health.lost, health.notes()) == ({}, [])
    list_segments(tmp_path, LABELS)[0].path.unlink()
    health.check()
    health.check()
    assert health.lost == {"labels": 1}
    old = tmp_path / "capture" / "date=2020-01-01"
    old.mkdir()
    (old / "0193d7a8-0000-7000-8000-000000000000.parquet").touch()
    health.check()
    (old / "0193d7a8-0000-7000-8000-000000000000.parquet").unlink()
    old.rmdir()
    health.check()
    assert health.lost == {"labels": 1}, "retention removed it"
    tmp_path.rename(tmp_path.with_name("gone"))
    health.check()
    assert health.lost == {"labels": 4, "capture": 4}
    assert health.notes()[0].startswith("4 capture segments and 4 label segments were deleted")
