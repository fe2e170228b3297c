"""The record of every turn of the wheel: why, what, verdict, and what it rested on; kept in SQLite.

A turn is open until its state is `done`, `failed` or `refused`. A model has at most one open turn, which the database
itself sees to.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Generator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from .settings import Reason

__all__ = ["CLOSED", "State", "Turn", "TurnStore", "VerdictRecord", "now"]

State = Literal["queued", "waiting", "running", "judging", "done", "failed", "refused"]
CLOSED: tuple[State, ...] = ("done", "failed", "refused")

_SCHEMA = """
create table if not exists turns (
    id text primary key, model text not null, reason text not null, state text not null,
    launched integer not null, finished_at text, document text not null
) strict;
create index if not exists turns_by_model on turns (model, id);
create unique index if not exists one_open_turn_a_model on turns (model)
    where state not in ('done', 'failed', 'refused');
"""


def now() -> datetime:
    """Return the time, UTC."""
    return datetime.now(UTC)


class VerdictRecord(BaseModel):
    """What the promotion gate said."""

    model_config = ConfigDict(frozen=True)

    accepted: bool
    reasons: list[str]


class Turn(BaseModel):
    """One turn of the wheel.

    Attributes:
        id: UUIDv7; sorts by the time the turn was queued.
        reason: the alert's `reason`.
        why: what the alert said.
        what: the command, and the address of the data.
        detail: what the turn is doing or waiting for, or how it ended, in a sentence.
        champion: the version which held the alias when the job was launched.
        served: the version which the alert was about, where it named one.
        version: the version which the job registered.
        data_commit: the lake's commit that version was trained on; before, the newest validated one.
        git_commit: the code's commit that version was trained at.
        attempt: 1, or 2 after the first job was lost.
        interruptions: how often the service was stopped while a job ran.
        job: id of the job, also the value of the run's tag `tidemill.job.id`.
        log: file with what the job printed.
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

    @property
    def open(self) -> bool:
        """Whether there is still something to do."""
        return self.state not in CLOSED


class TurnStore:
    """The turns of a service, in `path`; a change is on the disk when the method returns.

    Safe to share between threads.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        path.chmod(0o600)
        self._database.execute("pragma journal_mode = wal")
        self._database.execute("pragma synchronous = full")
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def add(self, turn: Turn) -> bool:
        """Add `turn`; return False when its model has an open one."""
        try:
            with self._lock:
                self._database.execute("insert into turns values (?, ?, ?, ?, ?, ?, ?)", _row(turn))
        except sqlite3.IntegrityError:
            return False
        return True

    def save(self, turn: Turn) -> None:
        """Write `turn` over what is kept of it, but for `resolved_at`, which is `resolve`'s."""
        with self._transaction():
            row = self._database.execute("select document from turns where id = ?", (turn.id,)).fetchone()
            if row:
                turn = turn.model_copy(update={"resolved_at": Turn.model_validate_json(row[0]).resolved_at})
            identifier, _, _, *changed = _row(turn)
            self._database.execute(
                "update turns set state = ?, launched = ?, finished_at = ?, document = ? where id = ?",
                (*changed, identifier),
            )

    def mark_resolved(self, model: str, reason: Reason, served: str | None, at: datetime | None) -> Turn | None:
        """Record on the newest turn of `model` for `reason` when its alert ended; None: it fires again.

        Args:
            model: name of the model.
            reason: the alert's reason.
            served: the version which the alert is about; a turn for another one is not meant.
            at: when the alert ended.

        Returns:
            The turn, when this changed it.
        """
        with self._transaction():
            rows = self._database.execute(
                "select document from turns where model = ? and reason = ? order by id desc limit 50", (model, reason)
            )
            turns = [Turn.model_validate_json(row[0]) for row in rows]
            turn = next((turn for turn in turns if None in (turn.served, served) or turn.served == served), None)
            if turn is None or (turn.resolved_at is None) == (at is None):
                return None
            turn = turn.model_copy(update={"resolved_at": at})
            self._database.execute("update turns set document = ? where id = ?", (turn.model_dump_json(), turn.id))
            return turn

    def open_turns(self) -> list[Turn]:
        """Return the open turns, oldest first."""
        return self._many("select document from turns where state not in ('done', 'failed', 'refused') order by id")

    def newest(self, limit: int = 200, model: str | None = None) -> list[Turn]:
        """Return the newest turns, of `model` where given, newest first."""
        if model is None:
            return self._many("select document from turns order by id desc limit ?", limit)
        return self._many("select document from turns where model = ? order by id desc limit ?", model, limit)

    def launched(self, model: str, reason: Reason, limit: int = 20) -> list[Turn]:
        """Return the closed turns of `model` for `reason` which launched a job, newest first."""
        return self._many(
            "select document from turns where model = ? and reason = ? and launched = 1 and finished_at is not null"
            " order by id desc limit ?",
            model, reason, limit,
        )  # fmt: skip

    def outcomes(self) -> list[tuple[str, str, str, int]]:
        """Return (model, reason, outcome, number) of the closed turns which launched a job."""
        with self._lock:
            return self._database.execute(
                "select model, reason, state, count(*) from turns where launched = 1 and finished_at is not null"
                " group by 1, 2, 3"
            ).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Generator[None]:
        with self._lock:
            self._database.execute("begin immediate")
            try:
                yield
            except BaseException:
                self._database.execute("rollback")
                raise
            self._database.execute("commit")

    def _many(self, statement: str, *values: object) -> list[Turn]:
        with self._lock:
            rows: Sequence[tuple[str]] = self._database.execute(statement, values).fetchall()
        return [Turn.model_validate_json(row[0]) for row in rows]


def _row(turn: Turn) -> tuple[object, ...]:
    finished = turn.finished_at.isoformat() if turn.finished_at else None
    return (turn.id, turn.model, turn.reason, turn.state, int(turn.job is not None), finished, turn.model_dump_json())
