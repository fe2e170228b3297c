"""The record of all retrainings in SQLite: cause, command, data, verdict and outcome.

A retraining is open until its state is `done`, `failed` or `refused`. The database allows each model at most one open
retraining.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from pydantic import AwareDatetime, BaseModel, ConfigDict

from .database import DatabaseFile, Recovery, is_damage
from .settings import Reason

R = TypeVar("R")

State = Literal["queued", "waiting", "running", "judging", "done", "failed", "refused"]
CLOSED: tuple[State, ...] = ("done", "failed", "refused")

FILE = "retrainings.db"
COPY_FILE = "retrainings.copy.db"
"""The copy of the database, from which the service starts if the database is damaged."""

OLD_FILE = "turns.db"
"""The database of earlier releases, with a table `turns`; a store takes over the one next to its own file."""

_SCHEMA = """
create table if not exists retrainings (
    id text primary key, model text not null, reason text not null, state text not null,
    launched integer not null, finished_at text, document text not null
) strict;
create index if not exists retrainings_by_model on retrainings (model, id);
create unique index if not exists one_open_retraining_a_model on retrainings (model)
    where state not in ('done', 'failed', 'refused');
"""


def now() -> datetime:
    """Return the time, UTC."""
    return datetime.now(UTC)


class VerdictRecord(BaseModel):
    """The verdict of the promotion gate."""

    model_config = ConfigDict(frozen=True)

    accepted: bool
    reasons: list[str]


class Retraining(BaseModel):
    """One retraining of a model.

    Attributes:
        id: UUIDv7; sorts by the time it was queued.
        reason: the alert's label `reason`.
        why: the alert's name and summary.
        what: the command and the address of the data.
        detail: what it is doing or waiting for, or how it ended; one sentence.
        champion: the champion when the job was launched.
        served: the version that the alert is about, if it names one.
        version: the version that the job registered.
        data_commit: the lakeFS commit the version was trained on; before that, the newest validated commit.
        git_commit: the Git commit of the training code.
        attempt: 1, or 2 after the first job was lost.
        interruptions: how often the service stopped while a job was running.
        job: the job's id, also the value of the run's tag `tidemill.job.id`.
        log: where the job's output is.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    model: str
    reason: Reason
    state: State
    why: str
    what: str
    detail: str = ""
    verdict: VerdictRecord | None = None
    champion: str | None = None
    served: str | None = None
    version: str | None = None
    data_commit: str | None = None
    git_commit: str | None = None
    attempt: int = 1
    interruptions: int = 0
    job: str | None = None
    log: str | None = None
    queued_at: AwareDatetime
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    resolved_at: AwareDatetime | None = None

    def changed(self, **changes: Any) -> Retraining:
        """Return a copy with `changes`."""
        return self.model_copy(update=changes)

    def closed(self, state: State, detail: str) -> Retraining:
        """Return a copy that is finished now."""
        return self.changed(state=state, detail=detail, finished_at=now())

    @property
    def open(self) -> bool:
        """Whether it is not finished."""
        return self.state not in CLOSED


class RetrainingStore:
    """The retrainings of a service, in the file `path`; each change is on disk when its method returns.

    Safe to share between threads.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._old = path.with_name(OLD_FILE)
        self._file = DatabaseFile(path, self._prepare, _check_rows)
        self._database = self._file.open()
        self._file.save_copy(self._database)

    def _prepare(self, database: sqlite3.Connection) -> None:
        database.executescript(_SCHEMA)
        if not self._old.exists():
            return
        try:
            _take_over(database, self._old)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            with contextlib.suppress(sqlite3.Error):
                database.execute("detach old")
            self._file.record(OLD_FILE, str(error), self._file.set_aside(self._old), restored=False)

    def recoveries(self) -> list[Recovery]:
        """Return when the database was damaged, while the damaged files are still there."""
        return self._file.recoveries()

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def _read(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Return the result of `work`; if the database is damaged, start from its copy and repeat."""
        with self._lock:
            try:
                return work(self._database)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                with contextlib.suppress(sqlite3.Error):
                    self._database.close()
                self._database = self._file.recover(str(error))
                return work(self._database)

    def _change(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Run `work` in a transaction, then renew the copy."""

        def change(database: sqlite3.Connection) -> R:
            database.execute("begin immediate")
            try:
                result = work(database)
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    database.execute("rollback")
                raise
            database.execute("commit")
            self._file.save_copy(database)
            return result

        return self._read(change)

    def add(self, retraining: Retraining) -> bool:
        """Add a retraining; return False if its model has an open one."""
        row = _row(retraining)
        try:
            self._change(lambda database: database.execute("insert into retrainings values (?, ?, ?, ?, ?, ?, ?)", row))
        except sqlite3.IntegrityError:
            return False
        return True

    def save(self, retraining: Retraining) -> None:
        """Update a retraining, except `resolved_at`, which only `mark_resolved` changes."""

        def update(database: sqlite3.Connection) -> None:
            row = database.execute("select document from retrainings where id = ?", (retraining.id,)).fetchone()
            resolved = Retraining.model_validate_json(row[0]).resolved_at if row else retraining.resolved_at
            identifier, _, _, *changed = _row(retraining.changed(resolved_at=resolved))
            database.execute(
                "update retrainings set state = ?, launched = ?, finished_at = ?, document = ? where id = ?",
                (*changed, identifier),
            )

        self._change(update)

    def mark_resolved(self, model: str, reason: Reason, served: str | None, at: datetime | None) -> Retraining | None:
        """Record when the alert of the newest matching retraining ended.

        Args:
            model: name of the model.
            reason: the alert's reason.
            served: the version that the alert is about; retrainings for other versions do not match.
            at: when the alert ended; None if it fires again.

        Returns:
            The retraining, if this changed it.
        """

        def mark(database: sqlite3.Connection) -> Retraining | None:
            rows = database.execute(
                "select document from retrainings where model = ? and reason = ? order by id desc limit 50",
                (model, reason),
            )
            retrainings = [Retraining.model_validate_json(row[0]) for row in rows]
            retraining = next(
                (
                    retraining
                    for retraining in retrainings
                    if None in (retraining.served, served) or retraining.served == served
                ),
                None,
            )
            if retraining is None or (retraining.resolved_at is None) == (at is None):
                return None
            retraining = retraining.changed(resolved_at=at)
            database.execute(
                "update retrainings set document = ? where id = ?", (retraining.model_dump_json(), retraining.id)
            )
            return retraining

        return self._change(mark)

    def open_retrainings(self) -> list[Retraining]:
        """Return the open retrainings, oldest first."""
        return self._many(
            "select document from retrainings where state not in ('done', 'failed', 'refused') order by id"
        )

    def newest(self, limit: int = 200, model: str | None = None) -> list[Retraining]:
        """Return the newest retrainings of `model`, or of all models, newest first."""
        if model is None:
            return self._many("select document from retrainings order by id desc limit ?", limit)
        return self._many("select document from retrainings where model = ? order by id desc limit ?", model, limit)

    def launched(self, model: str, reason: Reason, limit: int = 20) -> list[Retraining]:
        """Return the closed retrainings of `model` for `reason` that launched a job, newest first."""
        return self._many(
            "select document from retrainings where model = ? and reason = ? and launched = 1"
            " and finished_at is not null order by id desc limit ?",
            model, reason, limit,
        )  # fmt: skip

    def outcomes(self) -> list[tuple[str, str, str, int]]:
        """Return (model, reason, outcome, count) of the closed retrainings that launched a job."""
        return self._read(
            lambda database: database.execute(
                "select model, reason, state, count(*) from retrainings where launched = 1 and finished_at is not null"
                " group by 1, 2, 3"
            ).fetchall()
        )

    def _many(self, statement: str, *values: object) -> list[Retraining]:
        rows: Sequence[tuple[str]] = self._read(lambda database: database.execute(statement, values).fetchall())
        return [Retraining.model_validate_json(row[0]) for row in rows]


def _take_over(database: sqlite3.Connection, old: Path) -> None:
    """Copy the rows of an old database in one transaction, then delete it; safe to repeat after a crash."""
    database.execute("attach ? as old", (str(old),))
    # The file is empty if the service was killed before it created the table.
    if database.execute("select 1 from old.sqlite_master where name = 'turns'").fetchone():
        # On conflict the row of this database is newer.
        database.execute("insert or ignore into retrainings select * from old.turns")
    database.execute("detach old")
    # Remove the journal first, so that a crash cannot leave it without its database.
    for suffix in ("-wal", "-shm", ""):
        old.with_name(f"{old.name}{suffix}").unlink(missing_ok=True)


def _check_rows(database: sqlite3.Connection) -> None:
    """Check that each document is JSON and matches its row; SQLite itself has no checksums.

    Another release may have written the document, so its other fields are not checked.

    Raises:
        ValueError: a document does not match.
    """
    for identifier, model, state, document in database.execute("select id, model, state, document from retrainings"):
        found = json.loads(document)
        if not isinstance(found, dict):
            raise ValueError(f"the document of the retraining {identifier} is not an object")
        fields = cast("dict[str, Any]", found)
        if (fields.get("id"), fields.get("model"), fields.get("state")) != (identifier, model, state):
            raise ValueError(f"the columns of the retraining {identifier} differ from its document")


def _row(retraining: Retraining) -> tuple[object, ...]:
    finished = retraining.finished_at.isoformat() if retraining.finished_at else None
    return (
        retraining.id,
        retraining.model,
        retraining.reason,
        retraining.state,
        int(retraining.job is not None),
        finished,
        retraining.model_dump_json(),
    )
