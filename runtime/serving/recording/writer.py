"""The capture writer: queues answered requests and writes them to disk in its own thread.

Requests never wait for the disk and do not fail with it: rows that exceed the memory limits are dropped and counted. A
killed server loses at most the last `journal_seconds` and what it was writing; a drained server loses nothing.

Every `journal_seconds` the thread converts the queued requests to columns and appends them to a journal, one for each
model version. A full or old journal becomes a segment. While the disk fails, up to `held_rows` rows stay in memory and
the thread retries.
"""

from __future__ import annotations

import logging
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import pyarrow as pa

from ...capture import CAPTURE, Journal, Privacy, recover, remove_old, remove_partial, write_segment
from ...common.ids import uuid7_at
from ...common.secrets import read_secret
from ..settings import CaptureSettings
from .rows import CapturedRequest, segment_schema, to_record_batch

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 5.0
_CLEANUP_SECONDS = 60.0
_RETENTION_SECONDS = 3600.0
# Rows converted at a time, and the pause after them, in which requests get the interpreter's lock.
_CHUNK_ROWS = 512
_PAUSE_SECONDS = 0.0005
# Wake the thread early at this many rows: rows kept as tuples take ten times the memory.
_WAKE_ROWS = 1024
# Limits for large rows: size of a segment, and memory of all rows.
_SEGMENT_BYTES = 64_000_000
_HELD_BYTES = 256_000_000

_Key: TypeAlias = tuple[str, str, pa.Schema]
"""Model, version and schema: a segment holds the rows of one version."""


@dataclass
class _OpenSegment:
    """The rows of a segment that is not written yet.

    Attributes:
        began: `time.monotonic` of its first rows.
        rows: number of rows.
        size: bytes of the rows.
        journal: holds the rows on disk, or None.
        journaled: number of `batches` in the journal.
    """

    identifier: UUID
    schema: pa.Schema
    began: float
    batches: list[pa.RecordBatch] = field(default_factory=list[pa.RecordBatch])
    rows: int = 0
    size: int = 0
    journal: Journal | None = None
    journaled: int = 0

    def write_journal(self, settings: CaptureSettings) -> None:
        """Append the new batches to the journal.

        Raises:
            OSError: the journal could not be written; the rows stay in memory.
        """
        if self.journaled == len(self.batches):
            return
        if self.journal is None:
            self.journal = Journal(settings.directory, self.identifier, self.schema)
        try:
            while self.journaled < len(self.batches):
                self.journal.append(self.batches[self.journaled])
                self.journaled += 1
        except FileNotFoundError:
            self.journal.close()
            self.journal, self.journaled = None, 0
            raise


class CaptureWriter:
    """Captures the requests passed to `take`.

    Args:
        settings: of the capture.
        dropped: called with a number of lost rows, from any thread.
        written: called with the number of rows of a written segment, from the writer's thread.
        removed: called when the capture folder was removed, from the writer's thread.

    Raises:
        NotFoundError, ConfigError: the key of the hashes cannot be read.
    """

    def __init__(
        self,
        settings: CaptureSettings,
        *,
        dropped: Callable[[int], None] = lambda _: None,
        written: Callable[[int], None] = lambda _: None,
        removed: Callable[[], None] = lambda: None,
    ) -> None:
        self._removed = removed
        self._folder: tuple[int, int] | None = None
        self._settings = settings
        self._dropped = dropped
        self._written = written
        key = read_secret(settings.hash_key_file) if settings.hash and settings.hash_key_file else ""
        self._privacy = Privacy(frozenset(settings.leave_out), frozenset(settings.hash), key.encode())
        self._fraction = settings.fraction
        self._max_rows = settings.held_rows
        self._wake_rows = min(_WAKE_ROWS, settings.segment_rows, max(1, settings.held_rows // 2))
        self._items: deque[CapturedRequest] = deque()
        self._lock = threading.Lock()
        self._taken = 0
        # Changed only by the writer's thread.
        self._released = 0
        self._wake_at = self._wake_rows
        self._wake = threading.Event()
        self._closing = False
        self._open: dict[_Key, _OpenSegment] = {}
        self._sealed: deque[_OpenSegment] = deque()
        self._retry_at = self._cleanup_at = self._retention_at = 0.0
        self._cleaned_up = False
        self._failures: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def start(self) -> None:
        """Start the thread; it first recovers the journals of killed servers."""
        self._thread.start()

    def take(self, item: CapturedRequest) -> None:
        """Queue `item`, or drop it if too many rows are in memory; never waits for the disk."""
        # The end of an id is random, and equal for the answers of the model and its shadow: both are captured or none.
        if self._fraction < 1.0 and int(item.request_id[-8:], 16) >= self._fraction * 2**32:
            return
        rows = item.batch.rows
        with self._lock:
            taken = self._taken + rows
            fits = taken - self._released <= self._max_rows
            if fits:
                self._taken = taken
                self._items.append(item)
        if not fits:
            self._dropped(rows)
        elif taken >= self._wake_at:
            self._wake_at = taken + self._wake_rows
            self._wake.set()

    @property
    def held(self) -> int:
        """Rows that are not in a segment yet."""
        return self._taken - self._released

    def close(self) -> None:
        """Write all rows and stop; rows that still cannot be written stay in a journal, or are dropped and counted."""
        self._max_rows = -1
        self._closing = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            closing = self._closing
            try:
                self._check_folder()
                self._clean_up()
                self._convert()
                self._journal(self._open.values())
                self._seal(everything=closing)
                self._write(last=closing)
                self._journal(self._sealed)
            except Exception:  # noqa: BLE001 - an error must not end the capture; the rows are retried
                _log.exception("the capture writer failed and will retry")
            if closing:
                self._give_up()
                return
            self._wake.wait(self._settings.journal_seconds)
            self._wake.clear()

    def _check_folder(self) -> None:
        """Create the capture folder, and report that it was removed while this server ran."""
        directory = self._settings.directory
        found = _identity(directory)
        if found is not None and found == self._folder:
            return
        if self._folder is not None:
            _log.error(
                "the capture folder was removed and is created again; rows in memory are kept, its files are lost",
                extra={"directory": str(directory), "held": self.held},
            )
            self._removed()
            self._folder = None
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            self._failed("the capture folder cannot be created", error)
        else:
            self._folder = _identity(directory)

    def _clean_up(self) -> None:
        """Periodically recover the journals of ended workers and remove old data."""
        now = time.monotonic()
        directory = self._settings.directory
        if now < self._cleanup_at:
            return
        self._cleanup_at = now + _CLEANUP_SECONDS
        try:
            if not self._cleaned_up and (left := remove_partial(directory)):
                _log.warning("removed incomplete segments", extra={"files": left})
            self._cleaned_up = True
            recover(directory)
            if self._settings.retention_days is not None and now >= self._retention_at:
                self._retention_at = now + _RETENTION_SECONDS
                if removed := remove_old(directory, self._settings.retention_days):
                    _log.info("removed days beyond the retention time", extra={"folders": removed})
        except OSError as error:
            self._failed("the capture folder could not be cleaned up", error)

    def _convert(self) -> None:
        """Convert the queued requests to columns."""
        items = self._items
        groups: dict[int, list[CapturedRequest]] = {}
        for _ in range(len(items)):
            item = items.popleft()
            groups.setdefault(id(item.model), []).append(item)
        for group in groups.values():
            try:
                schema = segment_schema(group[0].model, self._privacy)
            except Exception:  # noqa: BLE001 - one model must not end the capture of the others
                _log.exception("the rows of a model have no capture schema")
                self._lose(sum(item.batch.rows for item in group))
                continue
            info = group[0].model.info
            key: _Key = (info.model, info.version, schema)
            for chunk in _chunks(group, min(_CHUNK_ROWS, self._settings.segment_rows)):
                self._add(chunk, key)
                time.sleep(_PAUSE_SECONDS)

    def _add(self, chunk: list[CapturedRequest], key: _Key) -> None:
        try:
            batch = to_record_batch(chunk, key[2], self._privacy)
        except Exception as error:  # noqa: BLE001 - the writer must survive invalid rows; they are counted
            if len(chunk) > 1:
                for item in chunk:
                    self._add([item], key)
                return
            # Not the error's text: it may quote values.
            _log.error("captured rows do not match their schema", extra={"error": type(error).__name__})
            self._lose(chunk[0].batch.rows)
            return
        if sum(each.size for each in (*self._sealed, *self._open.values())) + batch.nbytes > _HELD_BYTES:
            self._lose(batch.num_rows)
            return
        segment = self._open.get(key)
        if segment is not None and segment.rows + batch.num_rows > self._settings.segment_rows:
            self._sealed.append(self._open.pop(key))
            segment = None
        if segment is None:
            # Its name contains the time of its first request.
            first = min(item.received_at for item in chunk)
            segment = self._open[key] = _OpenSegment(uuid7_at(first), key[2], time.monotonic())
        segment.batches.append(batch)
        segment.rows += batch.num_rows
        segment.size += batch.nbytes

    def _seal(self, *, everything: bool) -> None:
        now = time.monotonic()
        for key, segment in list(self._open.items()):
            full = segment.rows >= self._settings.segment_rows or segment.size >= _SEGMENT_BYTES
            if everything or full or now - segment.began >= self._settings.segment_seconds:
                self._sealed.append(self._open.pop(key))

    def _journal(self, segments: Iterable[_OpenSegment]) -> None:
        for segment in segments:
            try:
                segment.write_journal(self._settings)
            except OSError as error:
                self._failed("the journal of the capture could not be written", error)
                return

    def _write(self, *, last: bool) -> None:
        """Write the sealed segments."""
        if not last and time.monotonic() < self._retry_at:
            return
        while self._sealed:
            segment = self._sealed[0]
            try:
                table = pa.Table.from_batches(segment.batches)
                write_segment(table, self._settings.directory, CAPTURE, identifier=segment.identifier)
            except OSError as error:
                self._failed("a segment could not be written", error)
                self._retry_at = time.monotonic() + _RETRY_SECONDS
                return
            self._sealed.popleft()
            if segment.journal is not None:
                segment.journal.discard()
            self._released += segment.rows
            self._written(segment.rows)
            if self._failures:
                _log.info("the capture can be written again")
                self._failures.clear()

    def _give_up(self) -> None:
        """Count the rows that were never written; the next server recovers those in a journal."""
        lost = sum(item.batch.rows for item in self._items)
        for segment in (*self._sealed, *self._open.values()):
            if segment.journal is not None:
                segment.journal.close()
            lost += sum(batch.num_rows for batch in segment.batches[segment.journaled :])
        if lost:
            self._lose(lost)

    def _lose(self, rows: int) -> None:
        self._released += rows
        self._dropped(rows)

    def _failed(self, message: str, error: OSError) -> None:
        """Log a failure once, not at each retry."""
        if message not in self._failures:
            self._failures.add(message)
            _log.error(message, extra={"error": str(error), "held": self.held})


def _identity(directory: Path) -> tuple[int, int] | None:
    """Return the device and inode of a folder, which change if it is created again; None if it is missing."""
    try:
        status = directory.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None


def _chunks(items: list[CapturedRequest], rows: int) -> Iterator[list[CapturedRequest]]:
    """Split `items` into chunks of at most `rows` rows; requests are not split, and one with columns is a chunk."""
    chunk: list[CapturedRequest] = []
    size = 0
    for item in items:
        alone = not isinstance(item.batch.values, list)
        if chunk and (alone or size + item.batch.rows > rows):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += item.batch.rows
        if alone:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
