"""Captured rows and labels, read back and joined."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from .segments import CAPTURE, LABEL_SCHEMA, LABELS, Segment, list_segments, read_segment

__all__ = ["join_labels", "latest_labels", "read_capture", "read_labels"]

_KEY = ["request_id", "row"]


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

    Versions with different features give the union of their features, null where a version has none. Rows which are
    in no segment yet are not among them.

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
