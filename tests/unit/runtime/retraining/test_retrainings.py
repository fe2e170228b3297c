"""The record of retrainings takes over the database of earlier releases, `turns.db`."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest
from tidemill.components.targets.local.store import FolderStore
from tidemill.runtime.retraining.retrainings import COPY_FILE, FILE, OLD_FILE, Retraining, RetrainingStore
from tidemill.stacks.moving.import_ import _Import
from tidemill.stacks.moving.manifest import Entry

# Copied from the release before the rename.
OLD_SCHEMA = """
create table if not exists turns (
    id text primary key, model text not null, reason text not null, state text not null,
    launched integer not null, finished_at text, document text not null
) strict;
create index if not exists turns_by_model on turns (model, id);
create unique index if not exists one_open_turn_a_model on turns (model)
    where state not in ('done', 'failed', 'refused');
"""

_WRITE = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("pragma journal_mode = wal")
database.execute("pragma synchronous = full")
database.executescript(sys.argv[2])
for row in eval(sys.argv[3]):
    database.execute("insert into turns values (?, ?, ?, ?, ?, ?, ?)", row)
os._exit(0)
"""

_TAKE_OVER = """
import os, sys
from pathlib import Path
from tidemill.runtime.retraining.retrainings import RetrainingStore
left = int(sys.argv[2])
def hook(event, arguments):
    global left
    if event == "os.remove":
        left -= 1
        if left < 0:
            os._exit(9)
sys.addaudithook(hook)
RetrainingStore(Path(sys.argv[1]))
"""


def retrainings() -> list[Retraining]:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    facts = {"reason": "drift", "why": "FeatureDrift: fires", "what": "python train.py", "queued_at": at}
    return [
        Retraining(id="1", model="flights", state="done", job="1", version="3", finished_at=at, **facts),
        Retraining(id="2", model="flights", state="running", job="2", detail="training", attempt=2, **facts),
        Retraining(id="3", model="boats", state="refused", job="3", finished_at=at, resolved_at=at, **facts),
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the state of a service that was killed, with all rows still in the journal."""
    rows = [
        (each.id, each.model, each.reason, each.state, 1, each.finished_at and "2026-01-02", each.model_dump_json())
        for each in retrainings()
    ]
    old = tmp_path / OLD_FILE
    subprocess.run([sys.executable, "-c", _WRITE, str(old), OLD_SCHEMA, repr(rows)], check=True)
    assert (tmp_path / f"{OLD_FILE}-wal").stat().st_size > 0
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_nothing_of_an_old_database_is_lost(folder: Path) -> None:
    with closing(RetrainingStore(folder / FILE)) as store:
        assert store.newest() == retrainings()[::-1]
        assert [each.id for each in store.open_retrainings()] == ["2"]
        assert sorted(store.outcomes()) == [("boats", "drift", "refused", 1), ("flights", "drift", "done", 1)]
        assert not store.add(retrainings()[1].model_copy(update={"id": "4"})), "the model has an open one"
    assert names(folder) == {FILE, COPY_FILE}
    with closing(RetrainingStore(folder / FILE)) as store:
        assert store.newest() == retrainings()[::-1]


@pytest.mark.parametrize("removed", [0, 1, 2])
def test_a_takeover_that_was_killed_is_finished_by_the_next_start(folder: Path, removed: int) -> None:
    argv = [sys.executable, "-c", _TAKE_OVER, str(folder / FILE), str(removed)]
    assert subprocess.run(argv, check=False).returncode == 9
    assert (folder / OLD_FILE).exists()
    with closing(RetrainingStore(folder / FILE)) as store:
        assert store.newest() == retrainings()[::-1]
    assert names(folder) == {FILE, COPY_FILE}


def test_an_old_database_that_comes_back_changes_nothing_that_is_newer(folder: Path) -> None:
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    finished = retrainings()[1].model_copy(update={"state": "failed", "finished_at": datetime.now(UTC)})
    with closing(RetrainingStore(folder / FILE)) as store:
        store.save(finished)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    with closing(RetrainingStore(folder / FILE)) as store:
        assert store.newest()[1] == finished
        assert len(store.newest()) == 3
    assert names(folder) == {FILE, COPY_FILE}


def test_an_old_file_without_a_table_is_removed(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / OLD_FILE)) as database:
        database.execute("pragma user_version = 1")
    with closing(RetrainingStore(tmp_path / FILE)) as store:
        assert store.newest() == []
    assert names(tmp_path) == {FILE, COPY_FILE}


def test_an_archive_of_an_earlier_release_brings_its_retrainings(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = f"stores/retraining/{OLD_FILE}"
    new = tmp_path_factory.mktemp("moved")
    moved = FolderStore(new)

    @contextmanager
    def reading(_entry: Entry, _count: object) -> Generator[BinaryIO]:
        with FolderStore(folder).open(OLD_FILE) as (source, _):
            yield source

    entry = Entry(name=name, size=1, sha256="0" * 64)
    archive: Any = SimpleNamespace(below=lambda _prefix: [entry], entries={name: entry}, reading=reading)
    ends: Any = SimpleNamespace(store=lambda _name: moved)
    nothing: Any = None
    running = _Import(ends, nothing, archive, nothing, nothing, nothing, lambda _size: None)
    running.write_store("retraining", encrypted=False)
    assert list(moved.names()) == [FILE]
    with closing(RetrainingStore(new / FILE)) as store:
        assert [(each.id, each.state) for each in store.newest()] == [("3", "refused"), ("2", "failed"), ("1", "done")]
