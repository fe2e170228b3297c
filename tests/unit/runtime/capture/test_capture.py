"""Segments: whole or not there; read back as they were written; labels joined, the last one counting."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tidemill.runtime import capture
from tidemill.runtime.capture import (
    CAPTURE,
    LABEL_SCHEMA,
    LABELS,
    join_labels,
    latest_labels,
    list_segments,
    new_segments,
    read_labels,
    read_segment,
    remove_old,
    remove_partial,
    write_segment,
)
from tidemill.runtime.capture.columns import Privacy
from tidemill.runtime.common import ids
from tidemill.runtime.common.files import create_locked
from tidemill.runtime.serving.recording.rows import segment_schema, to_record_batch

from tests.support.captured import captured, served_model

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


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


def test_everything_public_is_there() -> None:
    assert {name for name in capture.__all__ if getattr(capture, name, None) is None} == set()
    with pytest.raises(AttributeError, match="nothing"):
        _ = capture.nothing  # pyright: ignore[reportAttributeAccessIssue]


def test_a_killed_writer_leaves_whole_segments_only(tmp_path: Path) -> None:
    code = (
        "import sys, pyarrow as pa; from pathlib import Path\n"
        "from tidemill.runtime.capture import LABEL_SCHEMA, LABELS, write_segment\n"
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
    living = tmp_path / "labels" / "date=2020-01-01" / ".living.partial"
    create_locked(living)
    segments = list_segments(tmp_path, LABELS)
    assert len(segments) >= 12, "an acknowledged segment is gone"
    assert {read_segment(segment).num_rows for segment in segments} == {5000}
    assert remove_partial(tmp_path) >= 1
    assert list(tmp_path.rglob(".*")) == [living], "half a segment is left, or one of a living writer is gone"


def test_a_failed_write_shows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space"):
        write_segment(LABEL_SCHEMA.empty_table(), tmp_path, LABELS)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


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
    model = served_model()
    items = [captured(2, model=model, request_id="a"), captured(1, model=model, request_id="b")]
    rows = pa.Table.from_batches([to_record_batch(items, segment_schema(model, Privacy()), Privacy())])
    joined = join_labels(rows, labels)
    assert joined["label"].to_pylist() == [None, 1.0, 1.0]
    assert joined.drop_columns(["label"]).equals(rows)


def test_a_day_goes_as_a_whole_when_it_is_old_enough_and_never_the_running_one(tmp_path: Path) -> None:
    now = datetime(2026, 5, 10, 12, tzinfo=UTC)
    for day in ("2026-05-01", "2026-05-08", "2026-05-09", "2026-05-10", "2026-05-11"):
        for kind in (CAPTURE, LABELS):
            folder = tmp_path / kind / f"date={day}"
            folder.mkdir(parents=True)
            (folder / f"{ids.uuid7()}.parquet").write_bytes(b"x")
    # What was left by one who was killed while removing.
    (tmp_path / CAPTURE / ".removed-x" / "deep").mkdir(parents=True)

    def left() -> set[str]:
        return {
            path.name.removeprefix("date=2026-05-")
            for kind in (CAPTURE, LABELS)
            for path in (tmp_path / kind).iterdir()
        }

    assert remove_old(tmp_path, 2, now=now) == 2
    assert left() == {"08", "09", "10", "11"}, "the 8th ended one and a half days ago"
    assert remove_old(tmp_path, 1, now=now) == 2
    assert remove_old(tmp_path, 0.001, now=now) == 2
    assert left() == {"10", "11"}


def test_floats_that_do_not_shrink_are_stored_as_they_are(tmp_path: Path) -> None:
    rows = 4_000
    random = np.random.default_rng(1).normal(size=rows)
    features = {
        "random": pa.array(random),
        "rounded": pa.array(np.round(random, 1)),
        "nested": pa.array([[1.0, 2.0]] * rows),
        "text": pa.array(["a", "b"] * (rows // 2)),
    }
    for identifiers in ([str(number) for number in range(rows)], ["one request"] * rows):
        table = pa.table(
            {
                "request_id": identifiers,
                "features": pa.StructArray.from_arrays(list(features.values()), names=list(features)),
            }
        )
        segment = write_segment(table, tmp_path, CAPTURE)
        group = pq.read_metadata(segment.path).row_group(0)
        columns = {(found := group.column(index)).path_in_schema: found for index in range(group.num_columns)}
        codecs = {name: column.compression for name, column in columns.items()}
        assert codecs.pop("features.random") == "UNCOMPRESSED"
        assert set(codecs.values()) == {"ZSTD"}
        assert (
            "PLAIN_DICTIONARY" in str(columns["request_id"].encodings)
            or "RLE_DICTIONARY" in columns["request_id"].encodings
        ) == (identifiers[0] == identifiers[1])
        assert columns["request_id"].statistics.has_min_max
        assert read_segment(segment).select(table.column_names).equals(table)
