"""Finds the rows of one request among millions by the time in its id.

A segment's name contains the time of its first request, and its folder the day of writing. The search starts with
segments of about the time of the request, on its day and the next. Then it takes later days (a failed disk or a killed
server delays rows) and more distant times, and at last all segments that began before the request. It reads only the
footer of a segment, unless the footer says that the id may be in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..common.ids import parse_uuid7, time_of
from .journal import journals, read_journal
from .segments import CAPTURE, Segment, day_folders, names_in, segment_in

# Its functions are created on import; a type checker does not see them.
_compute: Any = pc
_NEAR = (timedelta(minutes=2), timedelta(hours=1), timedelta(days=1))
_TIME_DIGITS = 13


@dataclass(frozen=True)
class Found:
    """Rows of a request.

    Attributes:
        path: the segment or journal that contains them.
        rows: the rows, in order.
    """

    path: Path
    rows: pa.Table


def find(directory: Path, request_id: str) -> list[Found]:
    """Return the captured rows of a request, one item for each version that answered it, also in shadow.

    Rows that are not in a segment yet are found in their journal.

    Args:
        directory: the capture folder.
        request_id: the value of `X-Request-Id` in the response.

    Raises:
        ValueError: it is not an id of a model server.
    """
    identifier = parse_uuid7(request_id)
    wanted, milliseconds = str(identifier), identifier.int >> 80
    found: dict[str, Found] = {}
    # Journals first: rows move from a journal to a segment, never back.
    for path in journals(directory):
        table = read_journal(path)
        if table is not None and (rows := _only(table, wanted)).num_rows:
            found[path.stem] = Found(path, rows)
    for segments in _widening(directory, time_of(identifier).date(), milliseconds):
        for segment in segments:
            rows = rows_where(segment.path, "request_id", wanted)
            if rows is not None and rows.num_rows:
                found[segment.name] = Found(segment.path, rows)
        if found:
            break
    return sorted(found.values(), key=lambda each: each.path.name)


def _only(table: pa.Table, request_id: str) -> pa.Table:
    return table.filter(pc.field("request_id") == request_id)


def _widening(directory: Path, day: date, milliseconds: int) -> Iterator[list[Segment]]:
    """Yield the segments to search, the most likely ones first, each once."""
    # The clocks of two machines may differ about midnight.
    folders = day_folders(directory, CAPTURE, since=day - timedelta(days=1))
    usual = [each for each in folders if day <= each[0] <= day + timedelta(days=1)]
    names = _Names()
    spans = [distance // timedelta(milliseconds=1) for distance in _NEAR]
    yield names.between(usual, milliseconds - spans[0], milliseconds + spans[0])
    for span in spans:
        yield names.between(folders, milliseconds - span, milliseconds + span)
    yield names.between(folders, 0, milliseconds)


class _Names:
    """The names of segments; each folder is listed once, and each name returned once."""

    def __init__(self) -> None:
        self._listed: dict[Path, list[str]] = {}

    def between(self, folders: Sequence[tuple[date, Path]], first: int, last: int) -> list[Segment]:
        """Return the segments in `folders` from `first` to `last`, in milliseconds, except those returned before."""
        low, high = _digits(max(0, first)), _digits(min(last, (1 << 48) - 1))
        found: list[Segment] = []
        for day, folder in folders:
            if folder not in self._listed:
                self._listed[folder] = names_in(folder)
            names = self._listed[folder]
            near = [name for name in names if low <= name[:_TIME_DIGITS] <= high]
            if near:
                self._listed[folder] = [name for name in names if not low <= name[:_TIME_DIGITS] <= high]
                found += [segment_in(folder, day, name) for name in near]
        return found


def _digits(milliseconds: int) -> str:
    """Return the start of the ids of a time.

    >>> _digits(1_700_000_000_000)
    '018bcfe5-6800'
    """
    digits = f"{milliseconds:012x}"
    return f"{digits[:8]}-{digits[8:]}"


def rows_where(path: Path, column: str, value: Any) -> pa.Table | None:
    """Return the rows of a segment whose `column` (`features.NAME` for a feature) is `value`.

    Return None if the segment is gone, damaged, has no such column, or does not contain the value.
    """
    try:
        with pq.ParquetFile(path) as file:
            groups = _groups(file.metadata, column, value)
            if not groups:
                return None
            keys = file.read_row_groups(groups, columns=[column])
            mask = is_value(_leaf(keys, column), value)
            if not _compute.any(mask).as_py():
                return None
            return file.read_row_groups(groups).filter(mask)
    except (OSError, pa.ArrowInvalid):
        return None


def is_value(values: pa.ChunkedArray, value: Any) -> pa.ChunkedArray:
    """Return a mask of the `values` equal to `value`, which is text or of the column's type; null is not equal."""
    try:
        wanted = pa.scalar(value).cast(values.type)
    except (pa.ArrowException, OverflowError):
        return pa.chunked_array([pa.repeat(False, len(values))])
    return _compute.fill_null(_compute.equal(values, wanted), False)


def _leaf(table: pa.Table, column: str) -> pa.ChunkedArray:
    outer, _, inner = column.partition(".")
    values = table[outer]
    return _compute.struct_field(values, [inner]) if inner else values


def _groups(metadata: Any, column: str, value: Any) -> list[int]:
    """Return the row groups that may contain `value`, according to the footer."""
    found: list[int] = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        parts = (group.column(index) for index in range(group.num_columns))
        part = next((part for part in parts if part.path_in_schema == column), None)
        if part is not None and _may_contain(part.statistics, value):
            found.append(number)
    return found


def _may_contain(statistics: Any, value: Any) -> bool:
    if statistics is None or not statistics.has_min_max:
        return True
    if not isinstance(value, str) or not isinstance(statistics.min, str):
        return True
    # Python and the footer order text alike.
    return statistics.min <= value <= statistics.max
