"""The file of a SQLite database with a copy, from which the service starts when the file is damaged.

<name>.db                          the database
<name>.copy.db                     its copy, replaced after each change
<name>.damaged-<time>.db.gz        a damaged file that was set aside; kept until someone deletes it
<name>.recoveries.json             when a file was damaged, and what the service started from
"""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import shutil
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, BaseModel, ValidationError

from ..common.errors import PlatformError
from ..common.files import replacement, sync, write_private

_log = logging.getLogger(__name__)
_JOURNALS = ("-wal", "-shm", "-journal")
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# Errors caused by the machine or another process: the file may be intact.
_NO_DAMAGE = (
    *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY),
    *(sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL),
)


class Recovery(BaseModel):
    """A damaged or missing database.

    Attributes:
        at: when it was found.
        problem: what was wrong, one sentence.
        restored: whether the service started from the copy, and not from an empty database.
        kept: names of the files that were set aside.
    """

    at: AwareDatetime
    problem: str
    restored: bool
    kept: list[str]


class DatabaseFile:
    """The database in the file `path`.

    Args:
        path: the file.
        prepare: creates the tables of a new database.
        check: raises ValueError if a row is damaged.
    """

    def __init__(
        self, path: Path, prepare: Callable[[sqlite3.Connection], None], check: Callable[[sqlite3.Connection], None]
    ) -> None:
        self._path = path
        self._copy = path.with_name(f"{path.stem}.copy.db")
        self._notes = path.with_name(f"{path.stem}.recoveries.json")
        self._prepare = prepare
        self._check = check

    def open(self) -> sqlite3.Connection:
        """Return a connection to the database; start from the copy if the file is damaged.

        Raises:
            PlatformError: the file cannot be opened for another reason.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        has_copy = self._copy.exists() and self._copy.stat().st_size > 0
        if has_copy and (not self._path.exists() or self._path.stat().st_size == 0):
            return self.recover("it is missing or empty")
        try:
            return self._connect()
        except _DamagedError as error:
            return self.recover(str(error))

    def recover(self, problem: str) -> sqlite3.Connection:
        """Set the damaged file aside, start from the copy or an empty database, and record it; return a connection."""
        kept = self.set_aside(self._path)
        connection, restored = None, False
        if self._copy.exists():
            with self._copy.open("rb") as source, replacement(self._path) as file:
                shutil.copyfileobj(source, file)
            try:
                connection, restored = self._connect(), True
            except _DamagedError:
                kept += self.set_aside(self._copy)
                self._remove(self._path)
        connection = connection or self._connect()
        self.record(self._path.name, problem, kept, restored=restored)
        return connection

    def record(self, name: str, problem: str, kept: list[str], *, restored: bool) -> None:
        """Record and log that the file `name` was damaged."""
        entry = Recovery(at=datetime.now(UTC), problem=f"{name}: {problem}", restored=restored, kept=kept)
        entries = [*self.recoveries(), entry]
        write_private(self._notes, json.dumps([each.model_dump(mode="json") for each in entries]), durable=True)
        _log.error(
            "a database was damaged; starting from its copy"
            if restored
            else "a database was damaged and has no usable copy; starting without its records",
            extra={"file": name, "problem": problem, "kept": kept},
        )

    def recoveries(self) -> list[Recovery]:
        """Return the recoveries whose files are still there, oldest first."""
        try:
            found = [Recovery.model_validate(entry) for entry in json.loads(self._notes.read_text(encoding="utf-8"))]
        except (OSError, ValueError, ValidationError):
            return []
        return [each for each in found if any(self._path.with_name(name).exists() for name in each.kept)]

    def save_copy(self, connection: sqlite3.Connection) -> None:
        """Replace the copy with the current content; log an error if it cannot be written.

        Raises:
            sqlite3.DatabaseError: the database is damaged.
        """
        work = self._copy.with_name(f".{self._copy.name}.partial")
        try:
            work.unlink(missing_ok=True)
            connection.execute("vacuum into ?", (str(work),))
            work.chmod(0o600)
            sync(work)
            work.replace(self._copy)
            sync(self._copy.parent)
        except (OSError, sqlite3.Error) as error:
            if is_damage(error):
                raise
            _log.error("the copy of a database could not be written", extra={"file": work.name, "error": str(error)})

    def set_aside(self, path: Path) -> list[str]:
        """Compress a damaged database and its journals into files next to it, and remove them; return the new names.

        They are compressed, so no program opens them as databases.
        """
        kept: list[str] = []
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        for suffix in ("", *_JOURNALS):
            damaged = path.with_name(f"{path.name}{suffix}")
            if not damaged.exists() or damaged.stat().st_size == 0:
                continue
            target = path.with_name(f"{path.stem}.damaged-{stamp}.db{suffix}.gz")
            with damaged.open("rb") as source, replacement(target) as file, gzip.open(file, "wb") as packed:
                shutil.copyfileobj(source, packed)
            kept.append(target.name)
        self._remove(path)
        return kept

    @staticmethod
    def _remove(path: Path) -> None:
        # Remove the journals first: SQLite would apply a remaining journal to the next database.
        for suffix in (*_JOURNALS, ""):
            path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)

    def _connect(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            self._path.chmod(0o600)
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = full")
            self._prepare(connection)
            (answer,) = connection.execute("pragma quick_check(1)").fetchone()
            if answer != "ok":
                raise _DamagedError(str(answer))
            self._check(connection)
        except (sqlite3.Error, ValueError) as error:
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()
            if _code(error) in _NO_DAMAGE:
                raise PlatformError(
                    f"the database cannot be opened ({error})",
                    field="state",
                    value=str(self._path),
                    hint="make the folder writable, free disk space, or stop the other process that uses the file",
                ) from None
            raise _DamagedError(str(error).splitlines()[0]) from None
        return connection


class _DamagedError(ValueError):
    """The file is not an intact database."""


def is_damage(error: BaseException) -> bool:
    """Return whether an error of an open database means that its file is damaged."""
    return _code(error) in _DAMAGE or getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_SHORT_READ


def _code(error: Any) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    if code in (None, sqlite3.SQLITE_IOERR_SHORT_READ):
        return None
    return int(code) & 0xFF
