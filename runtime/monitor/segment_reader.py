"""Reads a growing capture, each segment once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pandas.util import hash_pandas_object

from ..capture import CAPTURE, KEY, LABEL_SCHEMA, LABELS, TIME, Kind, Segment, new_segments, read_segment
from .capture_health import CaptureHealth

FUTURE = timedelta(days=1)
"""Rows whose event time is further ahead of their arrival are ignored: one wrong clock would end every window."""


_COLUMNS: dict[Kind, Sequence[str]] = {
    CAPTURE: ("request_id", "row", "received_at", "event_time", "version", "role", KEY, "features", "outputs"),
    LABELS: (*LABEL_SCHEMA.names,),
}
_TYPES = {
    **dict.fromkeys(("request_id", "version", "role", KEY), pa.string()),
    **dict.fromkeys(("received_at", "event_time"), TIME),
    "row": pa.int32(),
}


class SegmentReader:
    """Returns each segment of `kind` below `directory` once, in order of writing.

    It remembers only the names of the last two days, since segments are listed by the day they were written.

    Args:
        directory: the capture folder.
        kind: `capture` or `labels`.
        since: the first UTC day to read.
        health: notes segments that cannot be read.
    """

    def __init__(
        self, directory: Path, kind: Kind, *, since: date | None = None, health: CaptureHealth | None = None
    ) -> None:
        self._directory = directory
        self._health = health
        self._kind: Kind = kind
        self._since = since
        self._seen: dict[str, date] = {}

    def segments(self) -> list[Segment]:
        """Return the segments added since the last call."""
        found = new_segments(self._directory, self._kind, self._seen, since=self._since)
        self._seen.update((segment.name, segment.day) for segment in found)
        if found:
            self._since = max(segment.day for segment in found) - timedelta(days=1)
            self._seen = {name: day for name, day in self._seen.items() if day >= self._since}
        return found

    def tables(self) -> Iterator[tuple[Segment, pa.Table]]:
        """Yield the new segments with their rows; deleted or damaged ones are skipped."""
        for segment in self.segments():
            if (table := read(segment, health=self._health)) is not None:
                yield segment, table


def read(segment: Segment, columns: list[str] | None = None, *, health: CaptureHealth | None = None) -> pa.Table | None:
    """Return the rows of `segment`, or None if it is deleted or damaged; note the damage in `health`."""
    try:
        return _checked(read_segment(segment, columns), columns or _COLUMNS[segment.kind])
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError) as error:
        if health is not None:
            health.add_unreadable(segment, error)
        return None


def _checked(table: pa.Table, required: Sequence[str]) -> pa.Table:
    """Return `table` with the types that the monitor expects.

    Raises:
        pyarrow.ArrowInvalid: a column is missing or has another type.
    """
    for name in required:
        at = table.schema.get_field_index(name)
        if at < 0:
            raise pa.ArrowInvalid(f"it has no column {name}")
        if (kind := _TYPES.get(name)) is not None and table.schema.field(at).type != kind:
            table = table.set_column(at, name, table[name].cast(kind))
    return table


@dataclass(frozen=True)
class Bounds:
    """The range of a segment's rows, from its footer."""

    first_event: datetime
    last_event: datetime
    first_version: str
    last_version: str


def bounds(segment: Segment) -> Bounds | None:
    """Return the bounds of a capture segment without reading its rows, or None if its footer has none."""
    try:
        metadata = pq.read_metadata(segment.path)
    except (pa.ArrowException, OSError):
        return None
    found: dict[str, list[Any]] = {"event_time": [], "version": []}
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            if (name := column.path_in_schema) in found:
                if column.statistics is None or not column.statistics.has_min_max:
                    return None
                found[name] += [column.statistics.min, column.statistics.max]
    if not all(found.values()):
        return None
    times, versions = found["event_time"], found["version"]
    return Bounds(min(times), max(times), min(versions), max(versions))


def served_rows(table: pa.Table, alias: str) -> pa.Table:
    """Return the rows that `alias` answered, without those from the future."""
    ahead = pc.field("event_time") - pc.field("received_at")
    return table.filter((pc.field("role") == alias) & (ahead <= pa.scalar(FUTURE, pa.duration("us"))))


def keys(table: pa.Table) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each (request_id, row), the same in every process."""
    frame = table.select(["request_id", "row"]).to_pandas()
    frame = frame.assign(row=frame["row"].astype("int64"))
    hashed = cast("Any", hash_pandas_object)(frame, index=False)
    return cast("NDArray[np.uint64]", hashed.to_numpy(dtype="uint64"))


def struct_columns(table: pa.Table, name: str) -> pa.Table:
    """Return the fields of the struct column `name` (`features`, `outputs`) as a table; those of a null are null."""
    names = [field.name for field in table.schema.field(name).type]
    if not table[name].num_chunks:
        return pa.table({})
    # `flatten` makes the fields of a null struct null; `field` would not.
    chunks = [chunk.flatten() for chunk in table[name].chunks]
    return pa.table([pa.chunked_array(column) for column in zip(*chunks, strict=True)], names)
