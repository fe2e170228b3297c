"""A request is found by its id wherever it was written; a subject's rows are forgotten everywhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tidemill.runtime.capture import (
    CAPTURE,
    LABEL_SCHEMA,
    LABELS,
    find,
    forget,
    journals,
    list_segments,
    read_capture,
    read_labels,
    read_segment,
    recover,
    write_segment,
)
from tidemill.runtime.capture import lookup as finding_module
from tidemill.runtime.capture.columns import Privacy
from tidemill.runtime.capture.journal import Journal
from tidemill.runtime.capture.segments import replace_segment
from tidemill.runtime.common.errors import ConfigError, NotFoundError
from tidemill.runtime.common.ids import uuid7_at
from tidemill.runtime.serving.contract.model_contract import Column
from tidemill.runtime.serving.recording.rows import CapturedRequest, segment_schema, to_record_batch

from tests.support.captured import captured, served_model

START = datetime(2026, 2, 1, tzinfo=UTC)
PEOPLE = (Column("email", "string", required=False), Column("age", "long"))


def keep(
    directory: Path, items: list[CapturedRequest], *, day: date | None = None, privacy: Privacy | None = None
) -> Path:
    """Write `items` as the segment which a writer would make, on `day`; return it."""
    done = privacy or Privacy()
    table = pa.Table.from_batches([to_record_batch([item], segment_schema(item.model, done), done) for item in items])
    segment = write_segment(table, directory, CAPTURE, identifier=uuid7_at(items[0].received_at))
    written = day or datetime.fromtimestamp(items[0].received_at, UTC).date()
    folder = directory / CAPTURE / f"date={written.isoformat()}"
    folder.mkdir(parents=True, exist_ok=True)
    return segment.path.rename(folder / segment.path.name)


def at(seconds: float, rows: int = 1, **more: Any) -> CapturedRequest:
    return captured(rows, received_at=START.timestamp() + seconds, **more)


def test_a_request_is_found_on_its_day_and_few_segments_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    read = finding_module.rows_where
    monkeypatch.setattr(finding_module, "rows_where", lambda path, *more: (opened.append(path), read(path, *more))[1])
    items = [at(hour * 3600, 2) for hour in range(0, 24 * 20, 3)]
    paths = [keep(tmp_path, [item]) for item in items]
    for index in (0, 77, len(items) - 1):
        opened.clear()
        (found,) = find(tmp_path, items[index].request_id)
        assert found.path == paths[index]
        assert found.rows["request_id"].to_pylist() == [items[index].request_id] * 2
        assert found.rows["row"].to_pylist() == [0, 1]
        assert len(opened) == 1
    opened.clear()
    assert find(tmp_path, at(24 * 3600 * 10 + 1).request_id) == []
    assert len(opened) < 30, "those of other days cannot hold it"
    with pytest.raises(ValueError, match="badly formed"):
        find(tmp_path, "not an id")


def test_rows_which_were_written_days_later_are_found(tmp_path: Path) -> None:
    late, usual = at(0), at(0.001)
    keep(tmp_path, [usual])
    path = keep(tmp_path, [late], day=START.date() + timedelta(days=9))
    (found,) = find(tmp_path, late.request_id)
    assert found.path == path


def test_a_row_far_from_its_segments_first_is_found(tmp_path: Path) -> None:
    for seconds in (100, 3000, 80_000, 800_000):
        item = at(seconds)
        path = keep(tmp_path, [at(0), item], day=START.date() + timedelta(seconds=seconds))
        (found,) = find(tmp_path, item.request_id)
        assert found.path == path


def test_the_shadows_rows_are_found_too(tmp_path: Path) -> None:
    item = at(0)
    first = keep(tmp_path, [item])
    second = keep(tmp_path, [at(0.2, model=served_model("2"), request_id=item.request_id, role="shadow")])
    found = find(tmp_path, item.request_id)
    assert {(each.path, each.rows["role"][0].as_py()) for each in found} == {(first, "champion"), (second, "shadow")}


def test_a_damaged_segment_hides_no_other(tmp_path: Path) -> None:
    item = at(0)
    path = keep(tmp_path, [item])
    path.with_name(f"{uuid7_at(START.timestamp())}.parquet").write_bytes(b"PAR1 no")
    assert [found.path for found in find(tmp_path, item.request_id)] == [path]


def test_the_benchmark_finds_what_it_looks_for(capsys: pytest.CaptureFixture[str]) -> None:
    from tests.benchmarks.serving.find import main

    assert main(["--rows", "2000", "--segments", "200", "--asked", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in said[1:]] == [
        "oldest",
        "written late",
        "end of a long segment",
        "never captured",
    ]


# --- forgetting -----------------------------------------------------------------------------------------------------


def person(seconds: float, *emails: str | None, **more: Any) -> CapturedRequest:
    rows = [(email, index) for index, email in enumerate(emails)]
    return at(seconds, len(rows), model=served_model("1", *PEOPLE), values=rows, **more)


def label(directory: Path, item: CapturedRequest) -> None:
    """Label every row of `item`."""
    rows = [
        {"request_id": item.request_id, "row": row, "label": 1.0, "received_at": START}
        for row in range(item.batch.rows)
    ]
    write_segment(pa.Table.from_pylist(rows, schema=LABEL_SCHEMA), directory, LABELS)


def emails(directory: Path) -> list[str | None]:
    table = read_capture(directory)
    return [] if table is None else [row["email"] for row in table["features"].to_pylist()]


def test_a_subjects_rows_and_their_labels_go_and_nothing_else(tmp_path: Path) -> None:
    items = [person(0, "ann", "bob"), person(1, "bob"), person(2, None, "ann", "ann"), person(9e5, "ann")]
    for item in items:
        keep(tmp_path, [item])
        label(tmp_path, item)
    # An older version knows no such column.
    keep(tmp_path, [at(5)])
    before = list_segments(tmp_path, CAPTURE)
    done = forget(tmp_path, "email", "ann")
    assert (done.rows, done.labels, done.waiting) == (4, 4, 0)
    assert sorted(emails(tmp_path), key=str) == [None, None, "bob", "bob"]
    left = read_labels(tmp_path)
    assert set(zip(left["request_id"].to_pylist(), left["row"].to_pylist(), strict=True)) == {
        (items[0].request_id, 1),
        (items[1].request_id, 0),
        (items[2].request_id, 0),
    }
    assert list_segments(tmp_path, CAPTURE) == before, "a reader knows segments by their names"
    assert not any(b"ann" in path.read_bytes() for path in tmp_path.rglob("*.parquet"))
    again = forget(tmp_path, "email", "ann")
    assert (again.rows, again.labels, again.segments) == (0, 0, 0)


def test_an_answer_of_the_whole_request_goes_with_any_of_its_rows(tmp_path: Path) -> None:
    items = [person(0, "bob", "ann"), person(1, "bob", "cid")]
    for item in items:
        path = keep(tmp_path, [item])
        (segment,) = [each for each in list_segments(tmp_path, CAPTURE) if each.path == path]
        table = read_segment(segment)
        answers = pa.array(['["about both"]', None], pa.string())
        index = table.schema.get_field_index("answer")
        replace_segment(table.set_column(index, table.schema.field(index), answers), segment)
        whole = [
            {"request_id": item.request_id, "row": row, "label": 1.0, "received_at": START} for row in (None, 0, 1)
        ]
        write_segment(pa.Table.from_pylist(whole, schema=LABEL_SCHEMA), tmp_path, LABELS)
    done = forget(tmp_path, "email", "ann")
    assert (done.rows, done.labels) == (1, 2)
    left = read_capture(tmp_path)
    assert left is not None
    assert sorted(zip(left["request_id"].to_pylist(), left["answer"].to_pylist(), strict=True), key=str) == sorted(
        [(items[0].request_id, None), (items[1].request_id, '["about both"]'), (items[1].request_id, None)], key=str
    )
    labels = read_labels(tmp_path)
    kept = zip(labels["request_id"].to_pylist(), labels["row"].to_pylist(), strict=True)
    assert set(kept) == {(items[0].request_id, 0), *((items[1].request_id, row) for row in (None, 0, 1))}


def test_numbers_times_and_ids_are_read_as_their_column(tmp_path: Path) -> None:
    item = person(0, "ann", "bob", "cid")
    keep(tmp_path, [item, person(1, "dora")])
    assert forget(tmp_path, "age", "2").rows == 1
    assert forget(tmp_path, "age", "two").rows == 0
    assert forget(tmp_path, "no such column", "2").rows == 0
    assert forget(tmp_path, "request_id", item.request_id).rows == 2
    assert emails(tmp_path) == ["dora"]


def test_hashed_rows_are_forgotten_by_what_was_hashed(tmp_path: Path) -> None:
    privacy = Privacy(hash=frozenset({"email", "age"}), key=b"key")
    keep(tmp_path, [person(0, "ann", "bob")], privacy=privacy)
    with pytest.raises(ConfigError, match="hash"):
        forget(tmp_path, "email", "ann")
    assert forget(tmp_path, "email", "ann", hash_key=b"another").rows == 0
    assert forget(tmp_path, "email", "ann", hash_key=b"key").rows == 1
    assert forget(tmp_path, "age", 1, hash_key=b"key").rows == 1


def test_forgetting_without_a_capture_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        forget(tmp_path / "none", "email", "ann")


@contextmanager
def journal(directory: Path, item: CapturedRequest) -> Iterator[Journal]:
    """Be a server which has `item` in its journal."""
    schema = segment_schema(item.model, Privacy())
    made = Journal(directory, uuid7_at(item.received_at), schema)
    made.append(to_record_batch([item], schema, Privacy()))
    try:
        yield made
    finally:
        made.close()


def test_rows_in_a_living_servers_journal_are_waited_for(tmp_path: Path) -> None:
    item = person(0, "ann", "bob")
    with journal(tmp_path, item) as held:
        assert forget(tmp_path, "email", "ann", wait_seconds=0).waiting == 1

        def become_a_segment() -> None:
            keep(tmp_path, [item])
            held.discard()

        timer = threading.Timer(0.3, become_a_segment)
        timer.start()
        done = forget(tmp_path, "email", "ann")
        timer.join()
    assert (done.rows, done.waiting) == (1, 0)
    assert emails(tmp_path) == ["bob"]


def test_rows_in_a_dead_servers_journal_are_forgotten_and_do_not_come_back(tmp_path: Path) -> None:
    with journal(tmp_path, person(0, "ann")) as held:
        copy = held.path.read_bytes()
    assert forget(tmp_path, "email", "ann").rows == 1
    assert journals(tmp_path) == []
    # As if the server had died between its segment and the end of its journal.
    held.path.write_bytes(copy)
    recover(tmp_path)
    assert emails(tmp_path) == []


def test_a_reader_sees_a_segment_with_the_rows_or_without(tmp_path: Path) -> None:
    for turn in range(20):
        keep(tmp_path, [person(turn, *["ann"] * 50, *["bob"] * 50)])
    seen: set[int] = set()
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            seen.update(len(found.rows) for found in _each(tmp_path))

    reader = threading.Thread(target=read)
    reader.start()
    assert forget(tmp_path, "email", "ann").rows == 1000
    ended.set()
    reader.join()
    assert seen <= {50, 100}
    assert {len(found.rows) for found in _each(tmp_path)} == {50}


def _each(directory: Path) -> list[Any]:
    from tidemill.runtime.capture import Found, read_segment

    return [Found(segment.path, read_segment(segment)) for segment in list_segments(directory, CAPTURE)]
