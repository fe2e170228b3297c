"""Segments: whole or not there; read back as they were written; labels joined, the last one counting."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tidemill.runtime import ids
from tidemill.runtime.capture import (
    CAPTURE,
    LABEL_SCHEMA,
    LABELS,
    capture_schema,
    join_labels,
    latest_labels,
    list_segments,
    new_segments,
    read_capture,
    read_labels,
    read_segment,
    remove_partial,
    write_segment,
)
from tidemill.runtime.serving import writer as writing
from tidemill.runtime.serving.contract import Batch, Column, Contract
from tidemill.runtime.serving.settings import CaptureSettings
from tidemill.runtime.serving.writer import Captured, CaptureWriter

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def model(version: str = "1", extra: tuple[str, ...] = ()) -> Any:
    columns = (Column("distance", "double"), Column("carrier", "string", required=False))
    contract = Contract(columns + tuple(Column(name, "double") for name in extra))
    return SimpleNamespace(
        info=SimpleNamespace(model="flights", version=version, alias="champion"),
        contract=contract,
        output="score",
        output_type=pa.struct([("score", pa.float64())]),
    )


def item(rows: int = 1, served: Any = None, request_id: str = "r", **extra: list[Any]) -> Captured:
    columns = {"distance": [float(row) for row in range(rows)], "carrier": [None] * rows, **extra}
    return Captured(request_id, None, NOW, served or model(), Batch(columns, None, rows), [0.5] * rows)


def wait(condition: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_ids_rise_and_tell_their_time() -> None:
    before = datetime.now(UTC)
    made = [ids.uuid7() for _ in range(20_000)]
    assert made == sorted(set(made))
    assert {(one.version, one.variant) for one in made} == {(7, "specified in RFC 4122")}
    assert abs(ids.time_of(made[0]) - before) < timedelta(seconds=1)
    assert ids.parse_uuid7(str(made[0])) == made[0]
    for wrong in ("", "1", made[0].hex, f"{{{made[0]}}}", "00000000-0000-4000-8000-000000000000"):
        with pytest.raises(ValueError):
            ids.parse_uuid7(wrong)


def test_a_killed_writer_leaves_whole_segments_only(tmp_path: Path) -> None:
    code = (
        "import sys, pyarrow as pa; from pathlib import Path; from tidemill.runtime.capture import *\n"
        "row = {'request_id': 'x' * 50, 'row': 0, 'label': 1.0, 'received_at': 0}\n"
        "table = pa.Table.from_pylist([row] * 5000, schema=LABEL_SCHEMA)\n"
        "while True:\n  write_segment(table, Path(sys.argv[1]), LABELS); print(flush=True)\n"
    )
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout
            for _ in range(4):
                process.stdout.readline()
            process.kill()
    (tmp_path / "labels" / "date=2020-01-01").mkdir()
    (tmp_path / "labels" / "date=2020-01-01" / ".half.partial").write_bytes(b"PAR1")
    segments = list_segments(tmp_path, LABELS)
    assert len(segments) >= 12, "an acknowledged segment is gone"
    assert {read_segment(segment).num_rows for segment in segments} == {5000}
    assert remove_partial(tmp_path) >= 1
    assert not list(tmp_path.rglob(".*")), "half a segment is left"


def test_a_failed_write_shows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space"):
        write_segment(LABEL_SCHEMA.empty_table(), tmp_path, LABELS)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_versions_with_other_features_are_read_together(tmp_path: Path) -> None:
    writer = CaptureWriter(CaptureSettings(directory=tmp_path, segment_seconds=60))
    writer.start()
    writer.take(item(2, request_id="a"))
    writer.take(item(1, model("2", ("temp",)), "b", temp=[7.0]))
    writer.close()
    # One segment a version, however little is in it.
    assert len(list_segments(tmp_path, CAPTURE)) == 2
    table = read_capture(tmp_path)
    assert table is not None
    assert [(row["version"], row["row"], row["features"]) for row in table.to_pylist()] == [
        ("1", 0, {"distance": 0.0, "carrier": None, "temp": None}),
        ("1", 1, {"distance": 1.0, "carrier": None, "temp": None}),
        ("2", 0, {"distance": 0.0, "carrier": None, "temp": 7.0}),
    ]
    only = read_capture(tmp_path, version="2")
    assert only is not None
    assert only.num_rows == 1
    assert read_capture(tmp_path, model="other") is None
    assert only.schema.equals(capture_schema(only.schema.field("features").type, only.schema.field("outputs").type))
    assert (only["received_at"][0].as_py(), only["event_time"][0].as_py()) == (NOW, NOW)


def test_new_segments_are_told_from_seen_ones(tmp_path: Path) -> None:
    first = write_segment(LABEL_SCHEMA.empty_table(), tmp_path, LABELS)
    second = write_segment(LABEL_SCHEMA.empty_table(), tmp_path, LABELS)
    assert list_segments(tmp_path, LABELS) == [first, second]
    assert new_segments(tmp_path, LABELS, {first.name}) == [second]
    assert list_segments(tmp_path, LABELS, since=first.day + timedelta(days=1)) == []
    first.path.unlink()
    assert read_labels(tmp_path).num_rows == 0


def test_the_last_label_counts_and_the_join_keeps_the_rows() -> None:
    def label(request_id: str, row: int, value: float, second: int) -> dict[str, Any]:
        at = NOW + timedelta(seconds=second)
        return {"request_id": request_id, "row": row, "label": value, "received_at": at}

    given = [label("b", 0, 1, 5), label("b", 0, 0, 1), label("a", 1, 0, 1), label("a", 1, 1, 1), label("gone", 0, 1, 1)]
    labels = latest_labels(pa.Table.from_pylist(given, schema=LABEL_SCHEMA))
    assert {(row["request_id"], row["row"]): row["label"] for row in labels.to_pylist()} == {
        ("b", 0): 1.0,
        ("a", 1): 1.0,
        ("gone", 0): 1.0,
    }
    served = model()
    captured = writing._table([item(2, served, "a"), item(1, served, "b")])  # pyright: ignore[reportPrivateUsage]
    joined = join_labels(captured, labels)
    assert joined["label"].to_pylist() == [None, 1.0, 1.0]
    assert joined.drop_columns(["label"]).equals(captured)


def test_segments_are_cut_by_rows_and_by_age(tmp_path: Path) -> None:
    writer = CaptureWriter(CaptureSettings(directory=tmp_path, segment_rows=10, segment_seconds=0.2))
    writer.start()
    try:
        for _ in range(25):
            writer.take(item())
        wait(lambda: sum(read_segment(one).num_rows for one in list_segments(tmp_path, CAPTURE)) == 25)
        sizes = [read_segment(one).num_rows for one in list_segments(tmp_path, CAPTURE)]
        assert max(sizes) <= 10, sizes
    finally:
        writer.close()


def test_a_disk_which_fails_slows_no_request_and_loses_only_what_cannot_be_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[int] = []
    broken = True
    taken = threading.Event()

    def write(*arguments: Any) -> Any:
        if broken:
            # A disk which answers only when every request has gone on: one which waited for it would never.
            assert taken.wait(60), "a request waited for the disk"
            raise OSError(28, "No space left on device")
        return write_segment(*arguments)

    monkeypatch.setattr(writing, "write_segment", write)
    monkeypatch.setattr(writing, "_RETRY_SECONDS", 0.1)
    writer = CaptureWriter(
        CaptureSettings(directory=tmp_path, segment_seconds=0.05, held_rows=50), dropped=dropped.append
    )
    writer.start()
    for _ in range(8):
        writer.take(item(10))
    taken.set()
    wait(lambda: sum(dropped) == 30)
    time.sleep(0.3)
    broken = False
    wait(lambda: list_segments(tmp_path, CAPTURE))
    writer.take(item(5))
    writer.close()
    table = read_capture(tmp_path)
    assert table is not None
    assert (table.num_rows, sum(dropped)) == (55, 30)
    writer.take(item(2))
    assert sum(dropped) == 32, "a row after the end was neither kept nor counted"


def test_rows_which_make_no_table_do_not_end_the_writer(tmp_path: Path) -> None:
    dropped: list[int] = []
    writer = CaptureWriter(CaptureSettings(directory=tmp_path, segment_seconds=0.05), dropped=dropped.append)
    writer.start()
    writer.take(item(3, distance=["far"] * 3))
    wait(lambda: dropped == [3])
    writer.take(item(1))
    writer.close()
    table = read_capture(tmp_path)
    assert table is not None
    assert table.num_rows == 1
