"""Writes, lists and reads segments."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal, cast
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from ..common.files import create_locked, left_behind, sync
from ..common.ids import uuid7
from .columns import ANSWER, KEY, TIME, schema_metadata, schema_version

Kind = Literal["capture", "labels"]
CAPTURE: Kind = "capture"
LABELS: Kind = "labels"

OUTPUT = "output"
"""The column with the name of the labelled output; segments of labels of schema 1 lack it."""

_SUFFIX = ".parquet"
_PARTIAL = ".partial"
# Rows that the Parquet writer buffers.
_GROUP_ROWS = 10_000
_DURABLE_FOLDERS = 64
# Readers select segments by these columns; statistics of every feature would cost more than they save.
_SELECTED_BY = ("request_id", "client_request_id", "row", "received_at", "event_time", "version", "role")
_CODEC = "zstd"
# A column of floats is stored as it is if its first values shrink by less than a tenth.
_SAMPLED_VALUES, _COMPRESSIBLE = 256, 0.9
# Ids are encoded by dictionary if the first rows have at most half as many: requests with many rows.
_SAMPLED_IDS = 32
_RELEASE_SECONDS = 1.0

LABEL_SCHEMA = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("row", pa.int32()),
        pa.field("label", pa.float64(), nullable=False),
        pa.field("received_at", TIME, nullable=False),
        pa.field(KEY, pa.string()),
        pa.field(OUTPUT, pa.string()),
    ],
    metadata=schema_metadata(),
)
"""The schema of labels: `row` is null if the label is that of the whole request, and `output` names what it labels
(a target, a column or a step of the answer) if an answer has several."""

_durable: set[Path] = set()
_released = 0.0


@dataclass(frozen=True, order=True)
class Segment:
    """One file of captured rows or labels.

    Attributes:
        name: the file's name without its suffix, a UUIDv7; sorts by time.
        day: the UTC day it was written on.
        path: the file.
    """

    name: str
    day: date
    path: Path

    @property
    def kind(self) -> Kind:
        """Whether it holds captured rows or labels."""
        return LABELS if self.path.parent.parent.name == LABELS else CAPTURE

    @property
    def id(self) -> UUID:
        """The name as a UUID, from which `ids.time_of` gives the time."""
        return UUID(self.name)


def write_segment(table: pa.Table, directory: Path, kind: Kind, *, identifier: UUID | None = None) -> Segment:
    """Write `table` as a new segment below `directory` that survives a crash of the machine.

    Args:
        table: the rows.
        directory: the capture folder.
        kind: captured rows or labels.
        identifier: the segment's name; a new one by default.

    Raises:
        OSError: it could not be written; readers see no part of it.
    """
    identifier = identifier or uuid7()
    day = datetime.now(UTC).date()
    folder = directory / kind / f"date={day.isoformat()}"
    fresh = folder not in _durable or not folder.exists()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{identifier}{_SUFFIX}"
    _write(table, path)
    # Sync new folders too; another process may have created this folder but not synced it yet.
    for each in (folder, folder.parent, directory) if fresh else (folder,):
        sync(each)
    if fresh:
        if len(_durable) >= _DURABLE_FOLDERS:
            _durable.clear()
        _durable.add(folder)
    return Segment(str(identifier), day, path)


def replace_segment(table: pa.Table, segment: Segment) -> None:
    """Replace the rows of `segment` by `table`, atomically.

    Raises:
        OSError: it could not be written, or its folder is gone; the segment is unchanged.
    """
    _write(table, segment.path)
    sync(segment.path.parent)


def _write(table: pa.Table, path: Path) -> None:
    hidden = path.with_name(f".{uuid7()}{_PARTIAL}")
    descriptor = create_locked(hidden)
    try:
        # A file of Arrow: a Python file would take the interpreter's lock for every page.
        with pa.OSFile(str(hidden), "wb") as sink:
            pq.write_table(
                table,
                sink,
                compression=cast("Any", _codecs(table)),
                use_dictionary=cast("Any", _repetitive(table)),
                write_statistics=cast("Any", [name for name in _SELECTED_BY if name in table.column_names]),
                row_group_size=_GROUP_ROWS,
            )
        os.fsync(descriptor)
        _release_memory()
        hidden.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            hidden.unlink()
        raise
    finally:
        os.close(descriptor)


def _codecs(table: pa.Table) -> str | dict[str, str]:
    """Return the compression of the columns: none for floats that a sample shows to be incompressible."""
    plain: set[str] = set()
    for name, column in zip(table.column_names, table.columns, strict=True):
        if not pa.types.is_struct(column.type) or not len(column):
            continue
        first = column.chunk(0)
        for position, each in enumerate(column.type):
            if pa.types.is_float64(each.type) and _is_incompressible(first.field(position)):
                plain.add(f"{name}.{each.name}")
    if not plain:
        return _CODEC
    leaves = (path for field in table.schema for path in _leaves(field.name, field.type))
    return {path: "none" if path in plain else _CODEC for path in leaves}


def _leaves(path: str, kind: pa.DataType) -> Iterator[str]:
    """Return the paths of the Parquet columns that store a column of type `kind`."""
    if pa.types.is_struct(kind):
        for each in kind:
            yield from _leaves(f"{path}.{each.name}", each.type)
    elif pa.types.is_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    else:
        yield path


def _is_incompressible(values: pa.Array) -> bool:
    data = values.buffers()[1]
    width = values.type.bit_width // 8
    start = values.offset * width
    sample = data.slice(start, min(_SAMPLED_VALUES, len(values)) * width)
    # LZ4 answers this in a tenth of the time of zstd.
    return pa.compress(sample, "lz4").size > _COMPRESSIBLE * sample.size


def _repetitive(table: pa.Table) -> list[str]:
    """Return the columns to encode by dictionary, those that repeat values; elsewhere it costs more than it saves."""
    found: list[str] = []
    for column in table.schema:
        if pa.types.is_struct(column.type):
            found += [f"{column.name}.{each.name}" for each in column.type if pa.types.is_string(each.type)]
        elif pa.types.is_string(column.type) and not column.name.endswith("request_id"):
            found.append(column.name)
    if "request_id" in table.column_names:
        first = table.column("request_id").slice(0, _SAMPLED_IDS)
        if len(first.unique()) <= _SAMPLED_IDS // 2 and table.num_rows >= _SAMPLED_IDS:
            found += [name for name in ("request_id", "client_request_id", "received_at") if name in table.column_names]
    return found


def _release_memory() -> None:
    """Return unused memory to the system, because a model server should not keep it; seldom, because it costs time."""
    global _released
    if (now := time.monotonic()) - _released >= _RELEASE_SECONDS:
        _released = now
        pa.default_memory_pool().release_unused()


def remove_partial(directory: Path) -> int:
    """Remove unfinished files of dead writers below `directory`; return their number."""
    removed = 0
    for kind in (CAPTURE, LABELS):
        for file in (directory / kind).glob(f"date=*/.*{_PARTIAL}"):
            with left_behind(file) as descriptor:
                if descriptor is not None:
                    file.unlink(missing_ok=True)
                    removed += 1
    return removed


def day_folders(directory: Path, kind: Kind, *, since: date | None = None) -> list[tuple[date, Path]]:
    """Return the folders of `kind` below `directory` with their days, from the UTC day `since` on, in order."""
    found: list[tuple[date, Path]] = []
    for folder in (directory / kind).glob("date=*"):
        try:
            day = date.fromisoformat(folder.name.removeprefix("date="))
        except ValueError:
            continue
        if since is None or day >= since:
            found.append((day, folder))
    return sorted(found)


def names_in(folder: Path) -> list[str]:
    """Return the names of the segments in a day's folder, unordered; none if the folder is gone."""
    try:
        entries = os.listdir(folder)  # noqa: PTH208 - a Path for each of 100,000 names is slow
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [name.removesuffix(_SUFFIX) for name in entries if name.endswith(_SUFFIX) and name[0] != "."]


def segment_in(folder: Path, day: date, name: str) -> Segment:
    """Return the segment `name` in the folder of `day`."""
    return Segment(name, day, folder / f"{name}{_SUFFIX}")


def list_segments(directory: Path, kind: Kind, *, since: date | None = None) -> list[Segment]:
    """Return the segments of `kind` below `directory` in the order of their names, from the UTC day `since` on."""
    return new_segments(directory, kind, (), since=since)


def new_segments(directory: Path, kind: Kind, seen: Collection[str], *, since: date | None = None) -> list[Segment]:
    """Return the segments whose names are not in `seen`, in the order of their names."""
    found = [
        segment_in(folder, day, name)
        for day, folder in day_folders(directory, kind, since=since)
        for name in names_in(folder)
        if name not in seen
    ]
    return sorted(found, key=lambda segment: segment.name)


def read_segment(segment: Segment, columns: list[str] | None = None) -> pa.Table:
    """Return the rows of `segment` in the current schema; columns that its own schema lacks are null.

    Raises:
        FileNotFoundError: the segment was deleted; captures may be deleted at any time.
        pyarrow.ArrowInvalid: the file is damaged.
    """
    # ParquetFile, not read_table: that would read the folder's `date=` as a column.
    with pq.ParquetFile(segment.path) as file:
        table = file.read(columns=columns)
    added = (KEY, OUTPUT) if segment.kind == LABELS else (KEY, ANSWER)
    for name in added:
        if name not in table.column_names and (columns is None or name in columns):
            # The API key before `features`, as in a new segment; everything else at the end.
            at = table.schema.get_field_index("features") if name == KEY else -1
            table = table.add_column(at if at >= 0 else table.num_columns, name, pa.nulls(table.num_rows, pa.string()))
    return _current(table)


def _current(table: pa.Table) -> pa.Table:
    """Return `table` with the metadata of the current schema, and with the columns nullable that are so in it."""
    if schema_version(table.schema) != 1:
        return table
    nullable = ("outputs",) if "features" in table.column_names else ("row",)
    fields = [field.with_nullable(True) if field.name in nullable else field for field in table.schema]
    return table.cast(pa.schema(fields, metadata={**(table.schema.metadata or {}), **schema_metadata()}))
