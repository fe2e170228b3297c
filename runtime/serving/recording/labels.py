"""Labels which clients send when the truth is known: read, and kept before they are acknowledged.

A label is known by `(request_id, row)`. To send one twice changes nothing; where two differ, the one received last
counts.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...capture import LABEL_SCHEMA, LABELS, write_segment
from ...common.ids import parse_uuid7
from ..contract.field_errors import invalid_fields
from ..http.errors import FieldError, Problem

__all__ = ["LabelWriter", "label_table"]

_log = logging.getLogger(__name__)

_KEYS = ("request_id", "row", "label")


def label_table(document: dict[str, Any], limit: int) -> pa.Table:
    """Return the labels in `document`, the body of `POST /labels`, at most `limit` of them.

    Raises:
        Problem: 413 for too many, 422 for what is understood and wrong, naming the fields.
    """
    given = document.get("labels")
    errors = [FieldError(key, "unknown key") for key in document if key != "labels"]
    if not isinstance(given, list) or not given:
        raise invalid_fields([*errors, FieldError("labels", "wants a list of at least one label")])
    if len(given) > limit:
        raise Problem(413, f"{len(given)} labels are more than the {limit} which one request may have")
    received = datetime.now(UTC)
    rows: list[dict[str, Any]] = []
    for index, label in enumerate(given):
        try:
            rows.append({**_label(label, f"labels[{index}]"), "received_at": received})
        except FieldError as error:
            errors.append(error)
    if errors:
        raise invalid_fields(errors)
    return pa.Table.from_pylist(rows, schema=LABEL_SCHEMA)


def _label(label: Any, at: str) -> dict[str, Any]:
    if not isinstance(label, dict):
        raise FieldError(at, "wants an object with request_id, row and label")
    for key in label:
        if key not in _KEYS:
            raise FieldError(f"{at}.{key}", "unknown key")
    identifier, row, value = (label.get(key) for key in _KEYS)
    try:
        request_id = str(parse_uuid7(identifier)) if isinstance(identifier, str) else ""
    except ValueError:
        request_id = ""
    if not request_id:
        raise FieldError(f"{at}.request_id", "wants the request_id of an answer")
    if type(row) is not int or not 0 <= row < 1 << 31:
        raise FieldError(f"{at}.row", "wants the position of the row in its request, from 0")
    if type(value) is int and abs(value) < 1 << 53:
        value = float(value)
    if type(value) is not float or not math.isfinite(value):
        raise FieldError(f"{at}.label", "wants a finite number")
    return {"request_id": request_id, "row": row, "label": value}


class LabelWriter:
    """Keeps labels, those of many requests at a time: what comes while one segment is written goes into the next.

    Args:
        directory: the capture folder.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._waiting: queue.SimpleQueue[tuple[pa.Table, Future[int]] | None] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._closed = False
        self._trouble = False
        self._thread = threading.Thread(target=self._run, name="labels", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def submit(self, labels: pa.Table) -> Future[int]:
        """Return a future of how many `labels` were kept: they are on the disk, synced, when it is done.

        It fails with an OSError where they cannot be kept; then nothing is known of them, and they may be sent again. A
        future which was cancelled while it waited keeps nothing.
        """
        future: Future[int] = Future()
        with self._guard:
            if self._closed:
                future.set_exception(OSError("the server ends"))
            else:
                self._waiting.put((labels, future))
        return future

    def close(self) -> None:
        """Keep what was submitted, and end."""
        with self._guard:
            self._closed = True
            self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        ending = False
        while not ending:
            taken = [self._waiting.get()]
            while not self._waiting.empty():
                taken.append(self._waiting.get())
            ending = None in taken
            group = [each for each in taken if each is not None and each[1].set_running_or_notify_cancel()]
            if group:
                self._keep([labels for labels, _ in group], [future for _, future in group])

    def _keep(self, tables: list[pa.Table], futures: list[Future[int]]) -> None:
        try:
            write_segment(pa.concat_tables(tables).combine_chunks(), self._directory, LABELS)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            if not self._trouble:
                _log.error("labels could not be written", extra={"error": str(error)})
            self._trouble = True
            failure = error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}")
            for future in futures:
                future.set_exception(failure)
            return
        if self._trouble:
            _log.info("labels are written again")
        self._trouble = False
        for table, future in zip(tables, futures, strict=True):
            future.set_result(table.num_rows)
