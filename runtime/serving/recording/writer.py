"""The capture writer: takes answered requests at once, and writes them from a thread of its own.

A request never waits for the disk and never fails with it: what cannot be held is dropped and counted. A killed server
loses at most the last `journal_seconds`, and what it was writing; a drained one loses nothing.

What is taken waits in a queue. Every `journal_seconds` the thread makes columns of it and adds them to a journal, one a
model version; a journal which is full or old enough becomes a segment. While the disk fails, rows are kept in memory,
`held_rows` at most, and tried again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias
from uuid import UUID

import pyarrow as pa

from ...capture import CAPTURE, Journal, Privacy, recover, remove_old, remove_partial, write_segment
from ...common.ids import uuid7_at
from ...common.secrets import read_secret
from ..settings import CaptureSettings
from .rows import CapturedRequest, segment_schema, to_record_batch

__all__ = ["CaptureWriter", "CapturedRequest"]

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 5.0
_TIDY_SECONDS = 60.0
_OLD_SECONDS = 3600.0
# Rows made into columns at a time, and the pause after it: the interpreter's lock is not kept from the requests.
_CHUNK_ROWS = 512
_PAUSE_SECONDS = 0.0005
# From so many rows on they do not wait for `journal_seconds`: as tuples they take ten times the memory.
_WAKE_ROWS = 1024
# Rows may be of any size: a segment is written too when it is this large, and no more than this is held.
_SEGMENT_BYTES = 64_000_000
_HELD_BYTES = 256_000_000

_Key: TypeAlias = tuple[str, str, pa.Schema]
"""Model, version, schema: a segment holds rows of one version."""


@dataclass
class _Growing:
    """The rows of one segment to be.

    Attributes:
        identifier: the segment's name.
        schema: its schema.
        began: when its first rows came here.
        batches: the rows.
        rows: how many.
        size: their bytes.
        journal: where they are on the disk, or None.
        journaled: how many of `batches` are there.
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
        """Put into the journal what is not there.

        Raises:
            OSError: it could not be written; the rows are still held.
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
    """Writes what `take` is given.

    Args:
        settings: where, how much, how often.
        dropped: called with the number of rows lost, from any thread.
        written: called with the number of rows which are in a segment, from the writer's thread.

    Raises:
        NotFoundError, ConfigError: the key of the hashes cannot be read.
    """

    def __init__(
        self,
        settings: CaptureSettings,
        *,
        dropped: Callable[[int], None] = lambda _: None,
        written: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._dropped = dropped
        self._written = written
        key = read_secret(settings.hash_key_file) if settings.hash and settings.hash_key_file else ""
        self._privacy = Privacy(frozenset(settings.leave_out), frozenset(settings.hash), key.encode())
        self._fraction = settings.fraction
        self._most = settings.held_rows
        self._early = min(_WAKE_ROWS, settings.segment_rows, max(1, settings.held_rows // 2))
        self._items: deque[CapturedRequest] = deque()
        self._counting = threading.Lock()
        self._taken = 0
        # Changed by the writer's thread alone.
        self._released = 0
        self._wake_at = self._early
        self._wake = threading.Event()
        self._closing = False
        self._growing: dict[_Key, _Growing] = {}
        self._sealed: deque[_Growing] = deque()
        self._retry_at = self._tidy_at = self._old_at = 0.0
        self._tidied = False
        self._troubles: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def start(self) -> None:
        """Begin to write; what killed predecessors left is taken up first."""
        self._thread.start()

    def take(self, item: CapturedRequest) -> None:
        """Keep `item` for the next segment, or drop it where too much is held already; never waits for the disk."""
        # The end of an id is random; a shadow's answer is captured when that of the model is.
        if self._fraction < 1.0 and int(item.request_id[-8:], 16) >= self._fraction * 2**32:
            return
        rows = item.batch.rows
        with self._counting:
            taken = self._taken + rows
            fits = taken - self._released <= self._most
            if fits:
                self._taken = taken
                self._items.append(item)
        if not fits:
            self._dropped(rows)
        elif taken >= self._wake_at:
            self._wake_at = taken + self._early
            self._wake.set()

    @property
    def held(self) -> int:
        """Rows which are in no segment yet."""
        return self._taken - self._released

    def close(self) -> None:
        """Write what is held and end; what even now cannot be written is dropped and counted, or in a journal."""
        self._most = -1
        self._closing = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            closing = self._closing
            try:
                self._tidy()
                self._convert()
                self._journal(self._growing.values())
                self._seal(everything=closing)
                self._write(last=closing)
                self._journal(self._sealed)
            except Exception:  # noqa: BLE001 - a bug here must not end the capture; what is held is tried again
                _log.exception("the capture writer stumbled")
            if closing:
                self._give_up()
                return
            self._wake.wait(self._settings.journal_seconds)
            self._wake.clear()

    def _tidy(self) -> None:
        """Now and then, take up what dead siblings left, and remove what is too old."""
        now = time.monotonic()
        directory = self._settings.directory
        if now < self._tidy_at:
            return
        self._tidy_at = now + _TIDY_SECONDS
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self._tidied and (left := remove_partial(directory)):
                _log.warning("removed half-written segments", extra={"files": left})
            self._tidied = True
            recover(directory)
            if self._settings.retention_days is not None and now >= self._old_at:
                self._old_at = now + _OLD_SECONDS
                if removed := remove_old(directory, self._settings.retention_days):
                    _log.info("removed days which are too old", extra={"folders": removed})
        except OSError as error:
            self._failed("the capture could not be tidied", error)

    def _convert(self) -> None:
        """Make columns of what was taken."""
        items = self._items
        groups: dict[int, list[CapturedRequest]] = {}
        for _ in range(len(items)):
            item = items.popleft()
            groups.setdefault(id(item.model), []).append(item)
        for group in groups.values():
            try:
                schema = segment_schema(group[0].model, self._privacy)
            except Exception:  # noqa: BLE001 - the rows of one strange model must not end the others' capture
                _log.exception("a model's rows have no schema")
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
        except Exception as error:  # noqa: BLE001 - the writer must outlive rows which make no table; they are counted
            if len(chunk) > 1:
                for item in chunk:
                    self._add([item], key)
                return
            # Not the message: it may quote the value.
            _log.error("captured rows do not fit their schema", extra={"error": type(error).__name__})
            self._lose(chunk[0].batch.rows)
            return
        if sum(each.size for each in (*self._sealed, *self._growing.values())) + batch.nbytes > _HELD_BYTES:
            self._lose(batch.num_rows)
            return
        growing = self._growing.get(key)
        if growing is not None and growing.rows + batch.num_rows > self._settings.segment_rows:
            self._sealed.append(self._growing.pop(key))
            growing = None
        if growing is None:
            # Its name tells the time of its first request, however late it is written.
            first = min(item.received_at for item in chunk)
            growing = self._growing[key] = _Growing(uuid7_at(first), key[2], time.monotonic())
        growing.batches.append(batch)
        growing.rows += batch.num_rows
        growing.size += batch.nbytes

    def _seal(self, *, everything: bool) -> None:
        now = time.monotonic()
        for key, growing in list(self._growing.items()):
            full = growing.rows >= self._settings.segment_rows or growing.size >= _SEGMENT_BYTES
            if everything or full or now - growing.began >= self._settings.segment_seconds:
                self._sealed.append(self._growing.pop(key))

    def _journal(self, all_growing: Iterable[_Growing]) -> None:
        for growing in all_growing:
            try:
                growing.write_journal(self._settings)
            except OSError as error:
                self._failed("the journal of the capture could not be written", error)
                return

    def _write(self, *, last: bool) -> None:
        """Make segments of what is sealed."""
        if not last and time.monotonic() < self._retry_at:
            return
        while self._sealed:
            growing = self._sealed[0]
            try:
                table = pa.Table.from_batches(growing.batches)
                write_segment(table, self._settings.directory, CAPTURE, identifier=growing.identifier)
            except OSError as error:
                self._failed("a segment could not be written", error)
                self._retry_at = time.monotonic() + _RETRY_SECONDS
                return
            self._sealed.popleft()
            if growing.journal is not None:
                growing.journal.discard()
            self._released += growing.rows
            self._written(growing.rows)
            if self._troubles:
                _log.info("the capture is written again")
                self._troubles.clear()

    def _give_up(self) -> None:
        """Count what could not be written to the end; what is in a journal is recovered by the next server."""
        lost = sum(item.batch.rows for item in self._items)
        for growing in (*self._sealed, *self._growing.values()):
            if growing.journal is not None:
                growing.journal.close()
            lost += sum(batch.num_rows for batch in growing.batches[growing.journaled :])
        if lost:
            self._lose(lost)

    def _lose(self, rows: int) -> None:
        self._released += rows
        self._dropped(rows)

    def _failed(self, what: str, error: OSError) -> None:
        """Say it once, not at each of the many tries."""
        if what not in self._troubles:
            self._troubles.add(what)
            _log.error(what, extra={"error": str(error), "held": self.held})


def _chunks(items: list[CapturedRequest], rows: int) -> Iterator[list[CapturedRequest]]:
    """Cut `items` into chunks of at most `rows` rows; a request is never cut, and one with columns stands alone."""
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
