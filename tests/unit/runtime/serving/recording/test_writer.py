"""The capture writer: every row once, whatever the disk does and whichever process is killed."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tidemill.runtime.capture import (
    CAPTURE,
    capture_schema,
    find,
    journals,
    list_segments,
    omitted_of,
    read_capture,
    read_journal,
    read_segment,
    recover,
    write_segment,
)
from tidemill.runtime.capture.columns import hash_value, is_hashed
from tidemill.runtime.common.ids import time_of
from tidemill.runtime.serving.contract.model_contract import Column
from tidemill.runtime.serving.recording import writer as writing
from tidemill.runtime.serving.recording.writer import CaptureWriter
from tidemill.runtime.serving.settings import CaptureSettings

from tests.support.captured import captured, served_model

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def settings(directory: Path, **values: Any) -> CaptureSettings:
    return CaptureSettings(directory=directory, **{"journal_seconds": 0.02, "segment_seconds": 0.05} | values)


@contextmanager
def writer(directory: Path, dropped: Callable[[int], None] = lambda _: None, **values: Any) -> Iterator[CaptureWriter]:
    made = CaptureWriter(settings(directory, **values), dropped=dropped)
    made.start()
    try:
        yield made
    finally:
        made.close()


def wait(condition: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def rows_of(directory: Path) -> list[dict[str, Any]]:
    table = read_capture(directory)
    return [] if table is None else table.to_pylist()


def in_journals(directory: Path) -> int:
    return sum(table.num_rows for path in journals(directory) if (table := read_journal(path)) is not None)


def test_versions_with_other_features_are_read_together(tmp_path: Path) -> None:
    second = served_model("2", Column("distance", "double"), Column("temp", "double"))
    with writer(tmp_path, segment_seconds=60) as made:
        made.take(captured(2, request_id="a", received_at=NOW.timestamp()))
        made.take(captured(1, model=second, request_id="b", values=[(0.0, 7.0)], received_at=NOW.timestamp()))
    # One segment a version, however little is in it.
    assert len(list_segments(tmp_path, CAPTURE)) == 2
    found = sorted(rows_of(tmp_path), key=lambda row: (row["version"], row["row"]))
    assert [(row["version"], row["row"], row["features"]) for row in found] == [
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


def test_two_versions_with_equal_features_do_not_share_a_segment(tmp_path: Path) -> None:
    with writer(tmp_path) as made:
        for version in ("1", "2", "1", "2"):
            made.take(captured(model=served_model(version)))
    held = [set(read_segment(one)["version"].to_pylist()) for one in list_segments(tmp_path, CAPTURE)]
    assert sorted(map(sorted, held)) == [["1"], ["2"]]


def test_rows_of_tuples_and_of_columns_are_captured_alike(tmp_path: Path) -> None:
    columns = (
        Column("flag", "boolean"),
        Column("count", "integer"),
        Column("big", "long"),
        Column("share", "float"),
        Column("ratio", "double", required=False),
        Column("name", "string", required=False),
        Column("raw", "binary", required=False),
        Column("seen", "datetime", required=False),
    )
    model = served_model("1", *columns)
    rows: list[tuple[Any, ...]] = [
        (True, 1, 1 << 40, 0.5, 1e300, "é", b"\xff", NOW),
        (False, -1, -1, -0.25, None, None, None, None),
        (True, 0, 0, 0.0, -0.0, "", b"", NOW),
    ]
    events = [NOW, datetime(2013, 1, 1, tzinfo=UTC), NOW]
    batch = model.contract.to_record_batch(captured(3, values=rows).batch)
    with writer(tmp_path) as made:
        made.take(captured(3, model=model, request_id="t", values=rows, event_times=events))
        made.take(captured(1, model=model, request_id="u", values=rows[:1], received_at=NOW.timestamp()))
        made.take(captured(3, model=model, request_id="c", values=batch, event_times=events))
    found = {(row["request_id"], row["row"]): row for row in rows_of(tmp_path)}
    names = [column.name for column in columns]
    for index, row in enumerate(rows):
        assert found["t", index]["features"] == dict(zip(names, row, strict=True))
        assert found["c", index]["features"] == found["t", index]["features"]
        assert found["c", index]["event_time"] == found["t", index]["event_time"] == events[index]
    assert found["u", 0]["event_time"] == NOW
    assert len(found) == 7


def test_tensors_are_captured(tmp_path: Path) -> None:
    model = served_model("1", Column("input", "tensor", dtype="float32", shape=(-1, 2, 2)))
    plain = [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]
    values = [(np.array(tensor, np.float32),) for tensor in plain]
    with writer(tmp_path) as made:
        made.take(captured(2, model=model, values=values))
        made.take(captured(2, model=model, values=model.contract.to_record_batch(captured(2, values=values).batch)))
    assert [row["features"]["input"] for row in rows_of(tmp_path)] == plain * 2


@pytest.mark.parametrize(
    ("of", "outputs", "kept"),
    [
        (pa.float64(), np.array([0.25, 0.75]), [0.25, 0.75]),
        (pa.float64(), np.array([0.25, 0.75], np.float32), [0.25, 0.75]),
        (pa.list_(pa.float64()), np.array([[0.25, 0.75], [1.0, 0.0]]), [[0.25, 0.75], [1.0, 0.0]]),
        (pa.string(), ["a", "b"], ["a", "b"]),
        (pa.int64(), [1, 2], [1, 2]),
    ],
)
def test_outputs_of_every_shape_are_kept(tmp_path: Path, of: pa.DataType, outputs: Any, kept: list[Any]) -> None:
    model = served_model(of=of)
    with writer(tmp_path) as made:
        made.take(captured(2, model=model, outputs=outputs))
        made.take(captured(1, model=model, outputs=outputs[1:]))
    assert [row["outputs"]["score"] for row in rows_of(tmp_path)] == [*kept, kept[1]]


def test_segments_are_cut_by_rows_and_by_age(tmp_path: Path) -> None:
    with writer(tmp_path, segment_rows=10, segment_seconds=0.2) as made:
        for _ in range(25):
            made.take(captured())
        made.take(captured(30, request_id="large"))
        wait(lambda: made.held == 0)
        sizes = [read_segment(one).num_rows for one in list_segments(tmp_path, CAPTURE)]
        large = sizes.pop(sizes.index(max(sizes)))
        assert large == 30, "a request was cut"
        assert max(sizes) <= 10, sizes
        assert sum(sizes) == 25
        assert journals(tmp_path) == []


def test_a_sample_is_a_sample_of_requests(tmp_path: Path) -> None:
    shadow = served_model("2")
    with writer(tmp_path, fraction=0.25) as made:
        for _ in range(4000):
            item = captured(2)
            made.take(item)
            made.take(captured(1, model=shadow, request_id=item.request_id, role="shadow"))
    found = rows_of(tmp_path)
    rows = [row for row in found if row["role"] == "champion"]
    shadows = [row for row in found if row["role"] == "shadow"]
    assert {row["request_id"] for row in shadows} == {row["request_id"] for row in rows}
    # Four standard deviations of a binomial distribution.
    assert len(rows) / 2 == pytest.approx(1000, abs=4 * (4000 * 0.25 * 0.75) ** 0.5)
    assert len({row["request_id"] for row in rows}) * 2 == len(rows), "half a request was captured"


def test_a_segment_bears_the_time_of_its_first_request(tmp_path: Path) -> None:
    with writer(tmp_path) as made:
        made.take(captured(received_at=NOW.timestamp()))
    (segment,) = list_segments(tmp_path, CAPTURE)
    assert time_of(segment.id) == NOW.replace(microsecond=678000)


# --- trouble --------------------------------------------------------------------------------------------------------


def test_a_disk_which_fails_slows_no_request_and_loses_only_what_cannot_be_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_RETRY_SECONDS", 0.05)
    dropped: list[int] = []
    store = tmp_path / "store"
    store.write_text("a file where the folder should be")
    with writer(store, dropped.append, held_rows=50) as made:
        for _ in range(8):
            made.take(captured(10))
        assert sum(dropped) == 30
        assert made.held == 50
        store.unlink()
        wait(lambda: made.held == 0)
        made.take(captured(5))
    assert len(rows_of(store)) == 55
    made.take(captured(2))
    assert sum(dropped) == 32, "a row after the end was neither kept nor counted"


def test_a_disk_which_does_not_answer_makes_nobody_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    taken, answered = threading.Event(), threading.Event()
    dropped: list[int] = []

    def write(*arguments: Any, **more: Any) -> Any:
        # A disk which answers only when every request has gone on: one which waited for it would never.
        assert taken.wait(60), "a request waited for the disk"
        answered.set()
        return write_segment(*arguments, **more)

    monkeypatch.setattr(writing, "write_segment", write)
    with writer(tmp_path, dropped.append, held_rows=50) as made:
        for _ in range(8):
            made.take(captured(10))
        taken.set()
    assert answered.is_set()
    assert (len(rows_of(tmp_path)), sum(dropped)) == (50, 30)


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="needs a file system of its own")
def test_a_full_disk_drops_and_counts_and_is_written_again_when_it_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_RETRY_SECONDS", 0.05)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount here")
    dropped: list[int] = []
    try:
        ballast = tmp_path / "ballast"
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            ballast.write_bytes(b"x" * 300_000)
        with writer(tmp_path, dropped.append, held_rows=1000) as made:
            for _ in range(1500):
                made.take(captured())
            assert sum(dropped) == 500
            time.sleep(0.3)  # many tries of the disk
            assert rows_of(tmp_path) == []
            ballast.unlink()
            wait(lambda: made.held == 0)
            assert len(rows_of(tmp_path)) == 1000
            made.take(captured(3))
        assert len(rows_of(tmp_path)) == 1003
        assert journals(tmp_path) == []
        assert not list(tmp_path.rglob(".*")), "half a segment is left"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_large_rows_are_held_within_bounds_and_written_sooner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_SEGMENT_BYTES", 50_000)
    monkeypatch.setattr(writing, "_HELD_BYTES", 200_000)
    monkeypatch.setattr(writing, "_CHUNK_ROWS", 1)
    dropped: list[int] = []
    large = [(1.0, "x" * 20_000)]
    store = tmp_path / "store"
    with writer(store, dropped.append, segment_seconds=1000) as made:
        for _ in range(3):
            made.take(captured(values=large))
        wait(lambda: len(rows_of(store)) == 3)
        shutil.rmtree(store)
        store.write_text("")
        for _ in range(20):
            made.take(captured(values=large))
        wait(lambda: made.held <= 10)
        assert sum(dropped) >= 10
        store.unlink()
    assert len(rows_of(store)) == 20 - sum(dropped) > 0


def test_a_folder_which_is_removed_is_made_again(tmp_path: Path) -> None:
    store = tmp_path / "store"
    removed: list[int] = []
    made = CaptureWriter(settings(store, segment_seconds=1000), removed=lambda: removed.append(1))
    made.start()
    made.take(captured(2))
    wait(lambda: in_journals(store) == 2)
    shutil.rmtree(store)
    wait(lambda: removed and store.is_dir())
    made.take(captured(3))
    # What was in the journal is not lost: it is held until it is in a segment.
    wait(lambda: in_journals(store) == 5)
    made.close()
    assert (len(rows_of(store)), removed) == (5, [1])


def test_what_cannot_be_written_at_the_end_is_counted(tmp_path: Path) -> None:
    dropped: list[int] = []
    store = tmp_path / "store"
    store.write_text("")
    with writer(store, dropped.append) as made:
        made.take(captured(7))
    assert dropped == [7]


def test_rows_which_make_no_table_do_not_end_the_writer(tmp_path: Path) -> None:
    dropped: list[int] = []
    with writer(tmp_path, dropped.append) as made:
        for values in ([(1.0, "a")], [("far", "a")] * 3, [(2.0, "b")]):
            made.take(captured(len(values), values=values))
        wait(lambda: dropped == [3])
        made.take(captured(model=object(), request_id="no model"))
        made.take(captured(request_id="after"))
    assert dropped == [3, 1]
    assert [row["features"]["distance"] for row in rows_of(tmp_path)] == [1.0, 2.0, 0.0]


# --- journals -------------------------------------------------------------------------------------------------------

_CHILD = """
import sys, time
from pathlib import Path
from tests.support.captured import captured
from tidemill.runtime.serving.settings import CaptureSettings
from tidemill.runtime.serving.recording.writer import CaptureWriter
writer = CaptureWriter(CaptureSettings(directory=Path(sys.argv[1]), segment_seconds=float(sys.argv[2])))
writer.start()
for number in range(int(sys.argv[3])):
    writer.take(captured(request_id=f"{sys.argv[4]}-{number}"))
    if number % 100 == 0:
        time.sleep(0.001)
print(flush=True)
while True:
    time.sleep(1)
"""


@contextmanager
def server(
    directory: Path, *, rows: int, name: str, segment_seconds: float = 1000
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process which captures `rows` requests, and kill it at the end."""
    root = Path(__file__).parents[5]
    argv = [sys.executable, "-c", _CHILD, str(directory), str(segment_seconds), str(rows), name]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=root) as process:
        try:
            assert process.stdout
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


def test_a_killed_server_loses_nothing_which_is_in_its_journal(tmp_path: Path) -> None:
    with server(tmp_path, rows=3000, name="killed"), server(tmp_path, rows=50, name="living") as living:
        wait(lambda: in_journals(tmp_path) == 3050)
    living.wait()
    # A third one, whose rows are not the others'.
    with writer(tmp_path, segment_seconds=1000) as made:
        made.take(captured(request_id="third"))
        wait(lambda: in_journals(tmp_path) == 1)
        rows = rows_of(tmp_path)
        assert len(rows) == len({row["request_id"] for row in rows}) == 3050
        assert recover(tmp_path).rows == 0, "the journal of a living writer was taken"
    assert len(rows_of(tmp_path)) == 3051
    assert journals(tmp_path) == []


def test_a_living_servers_journal_is_left_alone(tmp_path: Path) -> None:
    with server(tmp_path, rows=10, name="living"):
        wait(lambda: in_journals(tmp_path) == 10)
        assert recover(tmp_path).rows == 0
        assert in_journals(tmp_path) == 10
    assert recover(tmp_path).rows == 10
    assert recover(tmp_path).rows == 0


@pytest.mark.slow
def test_servers_killed_again_and_again_lose_and_double_nothing_which_was_on_the_disk(tmp_path: Path) -> None:
    for turn in range(4):
        # Killed while it makes segments of its journals.
        with server(tmp_path, rows=2000, name=f"turn{turn}", segment_seconds=0.01):
            wait(lambda turn=turn: len(rows_of(tmp_path)) + in_journals(tmp_path) >= 2000 * turn + 500)
    recover(tmp_path)
    found = [row["request_id"] for row in rows_of(tmp_path)]
    assert len(found) == len(set(found)), "a row is there twice"
    assert len(found) >= 4 * 500
    assert journals(tmp_path) == []


def test_a_journal_whose_segment_is_there_brings_nothing_back(tmp_path: Path) -> None:
    with server(tmp_path, rows=10, name="a"):
        wait(lambda: in_journals(tmp_path) == 10)
    (path,) = journals(tmp_path)
    kept = path.read_bytes()
    assert recover(tmp_path).rows == 10
    path.write_bytes(kept)
    assert recover(tmp_path).rows == 0
    assert (len(rows_of(tmp_path)), journals(tmp_path)) == (10, [])


def test_a_torn_journal_gives_its_whole_batches(tmp_path: Path) -> None:
    with server(tmp_path, rows=2000, name="a"):
        wait(lambda: in_journals(tmp_path) == 2000)
    (path,) = journals(tmp_path)
    whole = path.read_bytes()
    found = {0}
    for size in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:size])
        found.add(in_journals(tmp_path))
    assert len(found) > 2
    path.write_bytes(whole[:-100] + bytes(4000))
    partial = in_journals(tmp_path)
    assert recover(tmp_path).rows == partial
    assert len(rows_of(tmp_path)) == partial < 2001
    path.write_bytes(b"no journal")
    assert recover(tmp_path).rows == 0
    assert journals(tmp_path) == []


# --- personal data --------------------------------------------------------------------------------------------------


def private(tmp_path: Path, values: dict[str, Any], rows: list[tuple[Any, ...]], *columns: Column) -> pa.Table:
    key = tmp_path / "key"
    key.write_text("secret\n")
    store = tmp_path / "store"
    with writer(store, hash_key_file=key, **values) as made:
        made.take(captured(len(rows), model=served_model("1", *columns), values=rows))
    for file in store.rglob("*.parquet"):
        assert b"ann@" not in file.read_bytes()
    found = read_capture(store)
    assert found is not None
    return found


def test_columns_are_left_out_or_hashed(tmp_path: Path) -> None:
    columns = (Column("email", "string", required=False), Column("age", "long"), Column("name", "string"))
    rows: list[tuple[Any, ...]] = [("ann@example.org", 40, "ann@home"), (None, 41, "bob"), ("ann@example.org", 40, "x")]
    table = private(tmp_path, {"leave_out": ["name", "unknown"], "hash": ["email", "age"]}, rows, *columns)
    features = table.schema.field("features").type
    assert [(field.name, str(field.type), is_hashed(field)) for field in features] == [
        ("email", "string", True),
        ("age", "string", True),
    ]
    assert [row["email"] for row in table["features"].to_pylist()] == [
        hash_value("ann@example.org", b"secret"),
        None,
        hash_value("ann@example.org", b"secret"),
    ]
    assert table["features"][1].as_py()["age"] == hash_value("41", b"secret")
    assert omitted_of(table.schema).left_out == {"name"}
    assert omitted_of(table.schema).hashed == {"email", "age"}


def test_a_capture_without_any_feature_is_still_one(tmp_path: Path) -> None:
    table = private(tmp_path, {"leave_out": ["email"]}, [("ann@example.org",)] * 2, Column("email", "string"))
    assert table.num_rows == 2
    assert [row["score"] for row in table["outputs"].to_pylist()] == [0.5, 0.5]
    assert omitted_of(table.schema).names == {"email"}


def test_a_request_in_a_journal_is_found(tmp_path: Path) -> None:
    item = captured(2)
    with writer(tmp_path, segment_seconds=1000) as made:
        made.take(item)
        wait(lambda: in_journals(tmp_path) == 2)
        (found,) = find(tmp_path, item.request_id)
        assert found.path in journals(tmp_path)
        assert found.rows.num_rows == 2
    (found,) = find(tmp_path, item.request_id)
    assert found.path.suffix == ".parquet"
