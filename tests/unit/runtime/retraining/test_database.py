"""Damaged databases of retrainings: kept, replaced by their copy, and reported."""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tidemill.runtime.common.errors import PlatformError
from tidemill.runtime.retraining.retrainings import COPY_FILE, FILE, OLD_FILE, Retraining, RetrainingStore

Damage = Callable[[Path], None]


def retraining(number: int) -> Retraining:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    return Retraining(
        id=f"{number:04d}", model=f"model-{number}", state="queued", reason="drift", why="w" * 500, what="train",
        queued_at=at,
    )  # fmt: skip


WRITTEN = [retraining(number) for number in range(40)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a database with rows and its copy, as a stopped service leaves them."""
    with closing(RetrainingStore(tmp_path / FILE)) as store:
        for each in WRITTEN:
            assert store.add(each)
    return tmp_path / FILE


def overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 6000] = b"\xa5" * 6000
    path.write_bytes(content)


def text_overwritten(path: Path) -> None:
    """Damage one document only: its page stays intact for SQLite."""
    content = path.read_bytes()
    found = content.rindex(b'{"id":"0007"')
    path.write_bytes(content[:found] + b"\0\xff\0" + content[found + 3 :])


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def not_a_database(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)


DAMAGES = [overwritten, text_overwritten, truncated, cut, not_a_database]


def by_number(store: RetrainingStore) -> list[Retraining]:
    return sorted(store.newest(), key=lambda each: each.id)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_database_is_kept_and_replaced_by_its_copy(
    path: Path, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    damage(path)
    content = path.read_bytes()
    with closing(RetrainingStore(path)) as store:
        assert by_number(store) == WRITTEN
        assert not store.add(retraining(7)), "its model has an open one"
        (recovery,) = store.recoveries()
        assert store.add(retraining(100))
    assert "starting from its copy" in caplog.text
    assert recovery.restored
    (kept,) = recovery.kept
    assert gzip.decompress(path.with_name(kept).read_bytes()) == content
    with closing(RetrainingStore(path)) as store:
        assert by_number(store) == [*WRITTEN, retraining(100)]
        assert store.recoveries() == [recovery], "reported until someone deletes the damaged file"
        path.with_name(kept).unlink()
        assert store.recoveries() == []


@pytest.mark.parametrize("gone", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_lost_database_is_replaced_by_its_copy(path: Path, gone: Damage, caplog: pytest.LogCaptureFixture) -> None:
    gone(path)
    with closing(RetrainingStore(path)) as store:
        assert by_number(store) == WRITTEN
    assert "starting from its copy" in caplog.text


@pytest.mark.parametrize("damage", DAMAGES)
def test_if_both_are_damaged_the_service_starts_empty_and_says_so(
    path: Path, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    copy = path.with_name(COPY_FILE)
    contents = set()
    for each in (path, copy):
        damage(each)
        contents.add(each.read_bytes())
    with closing(RetrainingStore(path)) as store:
        assert store.newest() == []
        (recovery,) = store.recoveries()
        assert store.add(retraining(100))
    assert "starting without its records" in caplog.text
    assert not recovery.restored
    assert {gzip.decompress(path.with_name(name).read_bytes()) for name in recovery.kept} == contents
    with closing(RetrainingStore(path)) as store:
        assert by_number(store) == [retraining(100)]


def test_a_damaged_copy_is_replaced_and_harms_nothing(path: Path) -> None:
    overwritten(path.with_name(COPY_FILE))
    with closing(RetrainingStore(path)) as store:
        assert by_number(store) == WRITTEN
        assert store.recoveries() == []
    path.unlink()
    with closing(RetrainingStore(path)) as store:
        assert by_number(store) == WRITTEN


def test_a_database_damaged_while_it_is_open_is_replaced(path: Path) -> None:
    with closing(RetrainingStore(path)) as store:
        # Another connection merges the journal into the file, which is then damaged below the open one.
        with closing(sqlite3.connect(path)) as other:
            other.execute("pragma wal_checkpoint(truncate)")
        not_a_database(path)
        assert by_number(store) == WRITTEN
        assert store.add(retraining(100))
        assert len(store.recoveries()) == 1


def test_a_damaged_database_of_an_earlier_release_is_kept(path: Path) -> None:
    old = path.with_name(OLD_FILE)
    not_a_database(old)
    content = old.read_bytes()
    with closing(RetrainingStore(path)) as store:
        assert by_number(store) == WRITTEN
        (recovery,) = store.recoveries()
    assert OLD_FILE in recovery.problem
    assert gzip.decompress(path.with_name(recovery.kept[0]).read_bytes()) == content
    assert not old.exists()


def test_a_file_of_another_release_is_not_damaged(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "update retrainings set document = json_set(document, '$.reason', 'a-later-reason', '$.more', 1)"
            " where id = '0001'"
        )
        database.commit()
    with closing(RetrainingStore(path)) as store:
        assert store.recoveries() == []


def test_a_folder_that_cannot_be_written_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(PlatformError, match="cannot be opened"):
        RetrainingStore(tmp_path / FILE)
    assert (tmp_path / FILE).is_dir()


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of each file that holds records."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.stat().st_size and "-" not in file.name}


ODD_TABLES = {
    "fewer columns": "create table turns (id text); insert into turns values ('0001')",
    "other columns": "create table turns (a, b, c, d, e, f, g)",
    "a value of another type": "create table turns (id, model, reason, state, launched, finished_at, document);"
    " insert into turns values ('1', 'm', 'drift', 'done', 'no', null,"
    """ '{"id": "1", "model": "m", "state": "done"}')""",
}


@pytest.mark.parametrize("script", ODD_TABLES.values(), ids=ODD_TABLES.keys())
def test_an_odd_database_of_an_earlier_release_is_an_error_that_touches_no_file(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path.with_name(OLD_FILE))) as old:
        old.executescript(script)
    before = contents(path.parent)
    for _ in range(2):
        with pytest.raises(PlatformError, match=r"cannot take over .*turns\.db'; move it to another folder"):
            RetrainingStore(path)
        assert contents(path.parent) == before
    path.with_name(OLD_FILE).rename(path.with_name("moved"))
    with closing(RetrainingStore(path)) as store:
        assert by_number(store) == WRITTEN
        assert store.recoveries() == []


def test_damaged_rows_of_an_earlier_release_do_not_reach_the_database(path: Path) -> None:
    row = ("0500", "other", "drift", "done", 0, None, '{"id": "0501"}')
    with closing(sqlite3.connect(path.with_name(OLD_FILE))) as old:
        old.execute("create table turns (id, model, reason, state, launched, finished_at, document)")
        old.execute("insert into turns values (?, ?, ?, ?, ?, ?, ?)", row)
        old.commit()
    with closing(RetrainingStore(path)) as store:
        assert by_number(store) == WRITTEN
        (recovery,) = store.recoveries()
    assert recovery.problem.startswith(f"{OLD_FILE}: the columns of the retraining 0500 differ")
    assert [name.partition(".")[0] for name in recovery.kept] == ["turns"]


def test_a_table_of_another_release_is_an_error_that_touches_no_file(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.executescript("drop table retrainings; create table retrainings (id text, model text, state text)")
    before = contents(path.parent)
    with pytest.raises(PlatformError, match=r"no such column: .*to start from the copy"):
        RetrainingStore(path)
    assert contents(path.parent) == before


def test_a_recovery_is_recorded_although_another_file_stops_the_start(path: Path) -> None:
    not_a_database(path)
    with closing(sqlite3.connect(path.with_name(OLD_FILE))) as old:
        old.executescript(ODD_TABLES["fewer columns"])
    with pytest.raises(PlatformError, match="turns"):
        RetrainingStore(path)
    path.with_name(OLD_FILE).unlink()
    with closing(RetrainingStore(path)) as store:
        assert by_number(store) == WRITTEN
        assert [recovery.restored for recovery in store.recoveries()] == [True]
