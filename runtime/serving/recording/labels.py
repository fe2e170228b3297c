"""Parses and stores the labels that clients send when the true values are known.

`(request_id, row, output)` identifies a label. `row` is absent for an answer of the whole request. `output` names a
target, a column or a step if an answer has several. Sending a label twice changes nothing. Of two different labels of
one key, the last counts.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...capture import LABEL_SCHEMA, LABELS, write_segment
from ...common.ids import parse_uuid7
from ...common.target import Target
from ..contract.field_errors import invalid_fields, printable
from ..http.errors import FieldError, Problem

_log = logging.getLogger(__name__)

_KEYS = ("request_id", "row", "label", "output")
_OUTPUT_CHARACTERS = 200
_LISTED_CLASSES = 20
_SHOWN = 40


def label_table(
    document: dict[str, Any],
    limit: int,
    *,
    target: Target | None = None,
    version: str = "",
    allow_new: bool = False,
    needs_row: bool = True,
    key: str | None = None,
) -> pa.Table:
    """Return the labels in `document`, the body of `POST /labels`; one invalid label refuses all of them.

    Args:
        document: the parsed body.
        limit: maximum number of labels.
        target: the contract of the labels, or None if it is unknown.
        version: the version with this contract.
        allow_new: accept classes that are not in the contract.
        needs_row: refuse labels without `row`, because the version answers by row.
        key: name of the API key that sent them.

    Raises:
        Problem: 413 for more than `limit` labels, 422 for invalid values, with the fields.
    """
    labels = document.get("labels")
    errors = [FieldError(key, "unknown key") for key in document if key != "labels"]
    if not isinstance(labels, list) or not labels:
        raise invalid_fields([*errors, FieldError("labels", "must be a list with at least one label")])
    if len(labels) > limit:
        raise Problem(413, f"{len(labels)} labels exceed the limit of {limit} labels for each request")
    received = datetime.now(UTC)
    rows: list[dict[str, Any]] = []
    for index, label in enumerate(labels):
        try:
            row = _label(label, f"labels[{index}]", needs_row=needs_row)
        except FieldError as error:
            errors.append(error)
            continue
        # The contract is that of a model's only output.
        known = None if allow_new or row["output"] is not None else target
        if known is not None and known.problem(row["label"]) == "unknown_class":
            errors.append(FieldError(f"labels[{index}].label", _unknown_class(row["label"], known, version)))
        rows.append({**row, "received_at": received, "key": key})
    if errors:
        raise invalid_fields(errors)
    return pa.Table.from_pylist(rows, schema=LABEL_SCHEMA)


def outside_range(labels: pa.Table, target: Target | None) -> int:
    """Return how many `labels` are outside the range of the target at training."""
    if target is None:
        return 0
    pairs = zip(labels["label"].to_pylist(), labels["output"].to_pylist(), strict=True)
    return sum(target.is_outside(label) for label, output in pairs if output is None)


def _unknown_class(label: float, target: Target, version: str) -> str:
    classes: Sequence[float] = target.classes or ()
    names = [f"{each:g}" for each in classes[:_LISTED_CLASSES]]
    listed = ", ".join([*names, "..."] if len(classes) > len(names) else names)
    return (
        f"must be one of the classes of version {version} ({listed}); got {label:g}; "
        "to accept new classes, set serve.labels.allow_new"
    )


def _label(label: Any, at: str, *, needs_row: bool) -> dict[str, Any]:
    if not isinstance(label, dict):
        raise FieldError(at, "must be an object with request_id, row and label")
    for key in label:
        if key not in _KEYS:
            raise FieldError(f"{at}.{key}", "unknown key")
    identifier, row, value, output = (label.get(key) for key in _KEYS)
    try:
        request_id = str(parse_uuid7(identifier)) if isinstance(identifier, str) else ""
    except ValueError:
        request_id = ""
    if not request_id:
        raise FieldError(f"{at}.request_id", "must be the request_id of an answer")
    # An explicit null is always the whole request: another version than the serving one may have answered it.
    is_row = type(row) is int and 0 <= row < 1 << 31
    if not is_row and (row is not None or (needs_row and "row" not in label)):
        expected = "must be the position of the row in its request, from 0, or null for the whole request"
        raise FieldError(f"{at}.row", expected)
    if output is not None and not (isinstance(output, str) and 0 < len(output) <= _OUTPUT_CHARACTERS):
        raise FieldError(f"{at}.output", f"must be a name of 1 to {_OUTPUT_CHARACTERS} characters")
    if type(value) is int and abs(value) < 1 << 53:
        value = float(value)
    if type(value) is not float or not math.isfinite(value):
        raise FieldError(f"{at}.label", f"must be a finite number; got {printable(str(value)[:_SHOWN])}")
    return {"request_id": request_id, "row": row, "label": value, "output": output}


class LabelWriter:
    """Writes labels in segments: labels that arrive while a segment is written go into the next one.

    Args:
        directory: the capture folder.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._waiting: queue.SimpleQueue[tuple[pa.Table, Future[int]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="labels", daemon=True)

    def start(self) -> None:
        """Start the writing thread."""
        self._thread.start()

    def submit(self, labels: pa.Table) -> Future[int]:
        """Write `labels` and return a future with their number, which completes when they are synced to disk.

        The future fails with an OSError if they cannot be written; the client can then send them again. A future
        cancelled while it waits writes nothing.
        """
        future: Future[int] = Future()
        with self._lock:
            if self._closed:
                future.set_exception(OSError("the server is shutting down"))
            else:
                self._waiting.put((labels, future))
        return future

    def close(self) -> None:
        """Write the submitted labels and stop the thread."""
        with self._lock:
            self._closed = True
            self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            waiting = [self._waiting.get()]
            while not self._waiting.empty():
                waiting.append(self._waiting.get())
            closing = None in waiting
            group = [each for each in waiting if each is not None and each[1].set_running_or_notify_cancel()]
            if group:
                self._write([labels for labels, _ in group], [future for _, future in group])

    def _write(self, tables: list[pa.Table], futures: list[Future[int]]) -> None:
        try:
            write_segment(pa.concat_tables(tables).combine_chunks(), self._directory, LABELS)
        except Exception as error:  # noqa: BLE001 - no client may wait forever
            if not self._failing:
                _log.error("labels could not be written", extra={"error": str(error)})
            self._failing = True
            failure = error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}")
            for future in futures:
                future.set_exception(failure)
            return
        if self._failing:
            _log.info("labels can be written again")
        self._failing = False
        for table, future in zip(tables, futures, strict=True):
            future.set_result(table.num_rows)
