"""The capture writer: takes answered requests at once, and writes them as segments from a thread of its own.

A request never waits for the disk and never fails with it: what cannot be held is dropped and counted. A killed server
loses what it has not written yet, at most `segment_seconds` of traffic; a drained one loses nothing.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
from tidemill.runtime.capture import CAPTURE, capture_schema, remove_partial, write_segment
from tidemill.runtime.serving.contract import Batch
from tidemill.runtime.serving.model import ServedModel
from tidemill.runtime.serving.settings import CaptureSettings

__all__ = ["CaptureWriter", "Captured"]

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 5.0


@dataclass(frozen=True)
class Captured:
    """One answered request."""

    request_id: str
    client_request_id: str | None
    received_at: datetime
    model: ServedModel
    batch: Batch
    predictions: list[Any]


class CaptureWriter:
    """Writes what `take` is given.

    Args:
        settings: where, how much, how often.
        dropped: called with the number of rows lost, from any thread.
        written: called with the number of rows written.
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
        self._changed = threading.Condition()
        self._held: deque[Captured] = deque()
        self._rows = 0
        self._oldest = 0.0
        self._retry_at = 0.0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def start(self) -> None:
        """Begin to write; what a killed predecessor left half-written is removed first."""
        self._settings.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if left := remove_partial(self._settings.directory):
            _log.warning("removed half-written segments", extra={"files": left})
        self._thread.start()

    def take(self, item: Captured) -> None:
        """Keep `item` for the next segment, or drop it where too much is held already; never blocks on the disk."""
        fraction = self._settings.fraction
        if fraction < 1 and random.random() >= fraction:  # noqa: S311 - a sample, no secret
            return
        rows = item.batch.rows
        with self._changed:
            fits = not self._closing and self._rows + rows <= self._settings.held_rows
            if fits:
                if not self._held:
                    self._oldest = time.monotonic()
                    self._changed.notify()
                self._held.append(item)
                self._rows += rows
                if self._rows >= self._settings.segment_rows:
                    self._changed.notify()
        if not fits:
            self._dropped(rows)

    def close(self) -> None:
        """Write what is held and end; what even now cannot be written is dropped and counted."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due():
                    self._changed.wait(self._patience())
                closing, items = self._closing, list(self._held)
            if not items:
                return
            self._write(items, last=closing)

    def _due(self) -> bool:
        if self._closing:
            return True
        if not self._held or time.monotonic() < self._retry_at:
            return False
        return self._rows >= self._settings.segment_rows or self._patience() == 0

    def _patience(self) -> float | None:
        if not self._held:
            return None
        return max(0.0, max(self._oldest + self._settings.segment_seconds, self._retry_at) - time.monotonic())

    def _write(self, items: list[Captured], *, last: bool) -> None:
        """Write `items`, the first of those held: one segment for each version and `segment_rows` of them."""
        position = 0
        while position < len(items):
            group = [items[position]]
            rows = group[0].batch.rows
            for item in items[position + 1 :]:
                if item.model is not group[0].model or rows + item.batch.rows > self._settings.segment_rows:
                    break
                group.append(item)
                rows += item.batch.rows
            position += len(group)
            try:
                write_segment(_table(group), self._settings.directory, CAPTURE)
            except OSError as error:
                _log.error("a segment could not be written", extra={"error": str(error), "rows": rows})
                if not last:
                    self._retry_at = time.monotonic() + _RETRY_SECONDS
                    return
                self._dropped(rows)
            except Exception:  # noqa: BLE001 - the writer must outlive rows which make no table; they are counted
                _log.exception("captured rows do not fit their schema", extra={"rows": rows})
                self._dropped(rows)
            else:
                self._written(rows)
            self._release(len(group), rows)

    def _release(self, count: int, rows: int) -> None:
        with self._changed:
            for _ in range(count):
                self._held.popleft()
            self._rows -= rows
            self._oldest = time.monotonic()


def _table(items: list[Captured]) -> pa.Table:
    model = items[0].model
    schema = capture_schema(model.contract.arrow, model.output_type)
    sizes = [(item, item.batch.rows) for item in items]
    features = [model.contract.to_arrow(item.batch.columns) for item in items]
    outputs = [pa.array([{model.output: value} for value in item.predictions], model.output_type) for item in items]
    count = sum(rows for _, rows in sizes)
    return pa.Table.from_arrays(
        [
            pa.array([item.request_id for item, rows in sizes for _ in range(rows)], pa.string()),
            pa.array([item.client_request_id for item, rows in sizes for _ in range(rows)], pa.string()),
            pa.array([row for _, rows in sizes for row in range(rows)], pa.int32()),
            pa.array([item.received_at for item, rows in sizes for _ in range(rows)], schema.field("received_at").type),
            pa.array(
                [moment for item, rows in sizes for moment in item.batch.event_times or [item.received_at] * rows],
                schema.field("event_time").type,
            ),
            pa.repeat(model.info.model, count),
            pa.repeat(model.info.version, count),
            pa.repeat(model.info.alias, count),
            pa.chunked_array(features),
            pa.chunked_array(outputs),
        ],
        schema=schema,
    )
