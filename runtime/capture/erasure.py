"""Erases the captured rows of one person or request with their labels, or the labels that one API key sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..common.errors import ConfigError, NotFoundError
from ..common.files import waiting_lock
from .columns import ANSWER, KEY, hash_value, is_hashed
from .journal import journals, read_journal, recover
from .lookup import is_value, rows_where
from .segments import CAPTURE, LABELS, Segment, list_segments, read_segment, replace_segment

# Its functions are created on import; a type checker does not see them.
_compute: Any = pc
_LOCK = ".forget.lock"
_POLL_SECONDS = 0.1
# In the key of a label: the label of the whole request.
_WHOLE = "whole"
_IDS = ("request_id", "client_request_id")


@dataclass(frozen=True)
class Forgotten:
    """The result of `forget`.

    Attributes:
        rows: number of captured rows removed.
        labels: number of their labels removed.
        segments: number of files replaced.
        waiting: rows that are still in the journal of a running server; call `forget` again later.
    """

    rows: int = 0
    labels: int = 0
    segments: int = 0
    waiting: int = 0


def forget(
    directory: Path, column: str, value: Any, *, hash_key: bytes | None = None, wait_seconds: float = 30.0
) -> Forgotten:
    """Remove every captured row below `directory` whose `column` is `value`, and its labels.

    Servers can keep running. Each segment is replaced as a whole: a reader sees it with the rows or without them. Rows
    in a journal are waited for until they are in a segment; a request of the last second may be in neither. After an
    interruption, call it again: labels are removed first, so no label stays behind without its row. Data published to
    the lake, and data in a monitor's memory, are not changed.

    Args:
        directory: the capture folder.
        column: name of a feature, or `request_id`, or `client_request_id`.
        value: the value of the rows to remove; text is converted to the column's type.
        hash_key: the key of the hashes, if the column is captured as hashes.
        wait_seconds: how long to wait for rows in journals.

    Raises:
        NotFoundError: the folder does not exist.
        ConfigError: the column is hashed, and no key is given.
        OSError: a segment could not be written; segments before it are done.
    """
    if not directory.is_dir():
        raise NotFoundError("no capture folder", field="directory", value=str(directory))
    subject = _Subject(column, value, hash_key)
    # Two concurrent calls would restore each other's removed rows.
    with waiting_lock(directory / _LOCK):
        waiting = _wait(directory, subject, wait_seconds)
        held = [(segment, rows) for segment in list_segments(directory, CAPTURE) if (rows := subject.in_(segment))]
        keys = {key for _, found in held for key in found}
        # A label of the whole request is about the removed rows, too.
        gone = pa.array(sorted(keys | {f"{key.rpartition('/')[0]}/{_WHOLE}" for key in keys}), pa.string())

        def labelled(table: pa.Table) -> pa.ChunkedArray:
            return _compute.is_in(_keys(table), value_set=gone)

        labels, changed = 0, 0
        if len(gone):
            for segment in list_segments(directory, LABELS):
                removed = _remove(segment, labelled)
                labels += removed
                changed += removed > 0
        removed = [_remove(segment, subject.mask) for segment, _ in held]
    return Forgotten(sum(removed), labels, changed + sum(count > 0 for count in removed), waiting)


def forget_labels(directory: Path, key: str) -> Forgotten:
    """Remove every label below `directory` that the API key `key` sent; rows that it labelled stay, without a label.

    Servers can keep running. Data published to the lake, and data in a monitor's memory, are not changed.

    Args:
        directory: the capture folder.
        key: name of the API key.

    Raises:
        NotFoundError: the folder does not exist.
        OSError: a segment could not be written; segments before it are done.
    """
    if not directory.is_dir():
        raise NotFoundError("no capture folder", field="directory", value=str(directory))
    with waiting_lock(directory / _LOCK):

        def sent(table: pa.Table) -> pa.ChunkedArray:
            return is_value(table[KEY], key)

        removed = [_remove(segment, sent) for segment in list_segments(directory, LABELS)]
    return Forgotten(labels=sum(removed), segments=sum(count > 0 for count in removed))


@dataclass
class _Subject:
    """The rows to remove."""

    column: str
    value: Any
    key: bytes | None = field(repr=False)

    def in_(self, segment: Segment) -> list[str]:
        """Return the keys of the rows to remove in `segment`."""
        try:
            with pq.ParquetFile(segment.path) as file:
                columns = list(self._columns(file.schema_arrow))
        except (OSError, pa.ArrowInvalid):
            return []
        tables = [rows_where(segment.path, column, value) for column, value in columns]
        return [key for table in tables if table is not None for key in _keys(table).to_pylist()]

    def mask(self, table: pa.Table) -> pa.ChunkedArray:
        """Return a mask of the rows to remove in `table`."""
        found = pa.chunked_array([pa.repeat(False, table.num_rows)])
        for column, value in self._columns(table.schema):
            outer, _, inner = column.partition(".")
            values = _compute.struct_field(table[outer], [inner]) if inner else table[outer]
            found = _compute.or_(found, is_value(values, value))
        return found

    def _columns(self, schema: pa.Schema) -> Iterator[tuple[str, Any]]:
        """Yield the columns to search, each with the value to find."""
        if self.column in _IDS:
            yield self.column, self.value
        features = schema.field("features").type
        index = features.get_field_index(self.column)
        if index < 0:
            return
        if not is_hashed(features.field(index)):
            yield f"features.{self.column}", self.value
        elif self.key is None:
            raise ConfigError(
                "the capture contains only hashes of this column",
                field="column",
                value=self.column,
                hint="pass the key of the hashes",
            )
        else:
            text = self.value if isinstance(self.value, (str, bytes)) else str(pa.scalar(self.value).cast(pa.string()))
            yield f"features.{self.column}", hash_value(text, self.key)


def _keys(table: pa.Table) -> pa.ChunkedArray:
    rows = _compute.fill_null(_compute.cast(table["row"], pa.string()), _WHOLE)
    return _compute.binary_join_element_wise(table["request_id"], rows, "/")


def _without_answers(kept: pa.Table, removed: pa.Table) -> pa.Table:
    """Return `kept` without the answers of whole requests that have a row in `removed`: they tell about that row."""
    if ANSWER not in kept.column_names:
        return kept
    partial = _compute.is_in(kept["request_id"], value_set=removed["request_id"].combine_chunks())
    answers = _compute.if_else(partial, pa.scalar(None, pa.string()), kept[ANSWER])
    return kept.set_column(kept.schema.get_field_index(ANSWER), kept.schema.field(ANSWER), answers)


def _wait(directory: Path, subject: _Subject, seconds: float) -> int:
    """Wait until no journal holds a row of `subject`; return the number of rows left at the time limit."""
    end = time.monotonic() + seconds
    pending = journals(directory)
    while True:
        recover(directory)
        found = {path: rows for path in pending if (rows := _in_journal(path, subject))}
        if not found or time.monotonic() >= end:
            return sum(found.values())
        pending = list(found)
        time.sleep(_POLL_SECONDS)


def _in_journal(path: Path, subject: _Subject) -> int:
    table = read_journal(path)
    return 0 if table is None else _compute.sum(subject.mask(table)).as_py() or 0


def _remove(segment: Segment, mask: Callable[[pa.Table], pa.ChunkedArray]) -> int:
    """Rewrite `segment` without the masked rows; return the number of removed rows."""
    try:
        table = read_segment(segment)
        found = mask(table)
        kept = table.filter(_compute.invert(found))
        if kept.num_rows < table.num_rows:
            # Even if no row is left: without its segment, a journal of that name would restore the rows.
            replace_segment(_without_answers(kept, table.filter(found)), segment)
    except (FileNotFoundError, pa.ArrowInvalid):
        return 0
    return table.num_rows - kept.num_rows
