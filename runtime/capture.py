"""What serving keeps of its traffic and of the labels which come later, and how it is read back.

    <directory>/capture/date=YYYY-MM-DD/<uuid7>.parquet   one row for each row served
    <directory>/labels/date=YYYY-MM-DD/<uuid7>.parquet    one row for each label received

A segment is written whole under a hidden name, synced, then renamed: a reader never sees half a segment, and one which
is there never changes. `date` is the UTC day the segment was written on; its name sorts by time.

    seen: set[str] = set()
    while True:
        for segment in new_segments(directory, CAPTURE, seen):
            table = read_segment(segment)   # features and outputs are structs
            seen.add(segment.name)
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tidemill.runtime.ids import uuid7

__all__ = [
    "CAPTURE",
    "LABELS",
    "LABEL_SCHEMA",
    "Kind",
    "Segment",
    "capture_schema",
    "join_labels",
    "latest_labels",
    "list_segments",
    "new_segments",
    "read_capture",
    "read_labels",
    "read_segment",
    "remove_partial",
    "write_segment",
]

Kind = Literal["capture", "labels"]
CAPTURE: Kind = "capture"
LABELS: Kind = "labels"

_TIME = pa.timestamp("us", tz="UTC")
_KEY = ["request_id", "row"]

LABEL_SCHEMA = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("label", pa.float64(), nullable=False),
        pa.field("received_at", _TIME, nullable=False),
    ]
)


def capture_schema(features: pa.StructType, outputs: pa.StructType) -> pa.Schema:
    """Return the schema of a capture segment for a model with these `features` and `outputs`.

    `event_time` is what the client said, else `received_at`. `role` is the alias by which the version answered, such
    as `champion`. `outputs` holds `score` (the probability of class 1) for a binary classifier, `scores` (a list, one
    for each class) for another classifier, `prediction` for everything else.
    """
    return pa.schema(
        [
            pa.field("request_id", pa.string(), nullable=False),
            pa.field("client_request_id", pa.string()),
            pa.field("row", pa.int32(), nullable=False),
            pa.field("received_at", _TIME, nullable=False),
            pa.field("event_time", _TIME, nullable=False),
            pa.field("model", pa.string(), nullable=False),
            pa.field("version", pa.string(), nullable=False),
            pa.field("role", pa.string(), nullable=False),
            pa.field("features", features, nullable=False),
            pa.field("outputs", outputs, nullable=False),
        ]
    )


@dataclass(frozen=True, order=True)
class Segment:
    """One file of captured rows or labels.

    Attributes:
        name: the file's name without its suffix, a UUIDv7; sorts by the time of writing.
        day: the UTC day it was written on.
        path: the file.
    """

    name: str
    day: date
    path: Path

    @property
    def id(self) -> UUID:
        """The name as a UUID, from which `ids.time_of` gives the time."""
        return UUID(self.name)


def write_segment(table: pa.Table, directory: Path, kind: Kind) -> Segment:
    """Write `table` as one new segment below `directory`; when this returns, it survives a crash.

    Raises:
        OSError: it could not be written; nothing of it is seen by readers.
    """
    identifier = uuid7()
    day = datetime.now(UTC).date()
    folder = directory / kind / f"date={day.isoformat()}"
    fresh = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    hidden = folder / f".{identifier}.partial"
    path = folder / f"{identifier}.parquet"
    try:
        with hidden.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        hidden.rename(path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
    # The names are durable only when their folders are.
    for each in (folder, folder.parent, directory) if fresh else (folder,):
        _sync(each)
    return Segment(str(identifier), day, path)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial(directory: Path) -> int:
    """Remove what a killed writer left half-written below `directory`; return how many files.

    Only for the one writer of `directory`, before it writes.
    """
    found = [file for kind in (CAPTURE, LABELS) for file in (directory / kind).glob("date=*/.*.partial")]
    for file in found:
        file.unlink(missing_ok=True)
    return len(found)


def list_segments(directory: Path, kind: Kind, *, since: date | None = None) -> list[Segment]:
    """Return the segments of `kind` below `directory` in the order of writing, from the UTC day `since` on."""
    found: list[Segment] = []
    for folder in (directory / kind).glob("date=*"):
        try:
            day = date.fromisoformat(folder.name.removeprefix("date="))
        except ValueError:
            continue
        if since is None or day >= since:
            found += [
                Segment(path.stem, day, path) for path in folder.glob("*.parquet") if not path.name.startswith(".")
            ]
    return sorted(found)


def new_segments(directory: Path, kind: Kind, seen: Collection[str], *, since: date | None = None) -> list[Segment]:
    """Return the segments whose names are not in `seen`, in the order of writing."""
    return [segment for segment in list_segments(directory, kind, since=since) if segment.name not in seen]


def read_segment(segment: Segment, columns: list[str] | None = None) -> pa.Table:
    """Return the rows of `segment`.

    Raises:
        FileNotFoundError: it was deleted meanwhile (captures may be deleted at any time).
        pyarrow.ArrowInvalid: the file is damaged.
    """
    # ParquetFile, not read_table: the folder's `date=` is no column.
    with pq.ParquetFile(segment.path) as file:
        return file.read(columns=columns)


def _read_all(segments: Iterable[Segment]) -> list[pa.Table]:
    tables: list[pa.Table] = []
    for segment in segments:
        try:
            tables.append(read_segment(segment))
        except FileNotFoundError:
            continue
    return tables


def read_capture(
    directory: Path, *, model: str | None = None, version: str | None = None, since: date | None = None
) -> pa.Table | None:
    """Return all captured rows of `model` and `version` in one table, or None where there is none.

    Versions with different features give the union of their features, null where a version has none.

    Args:
        directory: the capture folder.
        model: only this model's; None for every model's.
        version: only this version's; None for every version's.
        since: only segments written on this UTC day or later.
    """
    kept: list[pa.Table] = []
    for table in _read_all(list_segments(directory, CAPTURE, since=since)):
        rows = table
        for column, wanted in (("model", model), ("version", version)):
            if wanted is not None:
                rows = rows.filter(pc.field(column) == wanted)
        if rows.num_rows:
            kept.append(rows)
    return pa.concat_tables(kept, promote_options="permissive") if kept else None


def read_labels(directory: Path, *, since: date | None = None) -> pa.Table:
    """Return the labels below `directory`, one a (request_id, row): the last received wins."""
    tables = _read_all(list_segments(directory, LABELS, since=since))
    return latest_labels(pa.concat_tables(tables) if tables else LABEL_SCHEMA.empty_table())


def latest_labels(labels: pa.Table) -> pa.Table:
    """Return `labels` with one row a (request_id, row): the last received, of equals the one further down."""
    ordered = labels.append_column("_order", pa.array(range(labels.num_rows), pa.int64()))
    ordered = ordered.sort_by([("received_at", "ascending"), ("_order", "ascending")])
    ordered = ordered.set_column(
        ordered.schema.get_field_index("_order"), "_order", pa.array(range(labels.num_rows), pa.int64())
    )
    last = ordered.group_by(_KEY).aggregate([("_order", "max")])["_order_max"]
    return ordered.take(last.combine_chunks().sort()).drop_columns(["_order"])


def join_labels(captured: pa.Table, labels: pa.Table) -> pa.Table:
    """Return `captured` with a column `label`, null where none came; `labels` has one row a (request_id, row).

    Rows keep their order. A label for a request which was not captured is left out.
    """
    # Arrow's joins do not carry structs, so only the key and the position take part.
    position = pa.array(range(captured.num_rows), pa.int64())
    keys = captured.select(_KEY).append_column("_position", position)
    joined = keys.join(labels.select([*_KEY, "label"]), keys=_KEY, join_type="left outer").sort_by("_position")
    return captured.append_column("label", joined["label"])
