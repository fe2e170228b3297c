"""Reads captured rows and labels, and joins them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from .segments import CAPTURE, LABEL_SCHEMA, LABELS, OUTPUT, Segment, list_segments, read_segment

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
    """Return all captured rows of `model` and `version` in one table, or None if there are none.

    The table has the features of all versions; a feature that a version lacks is null. Rows that are not in a segment
    yet are not included.

    Args:
        directory: the capture folder.
        model: read rows of this model; None for all models.
        version: read rows of this version; None for all versions.
        since: read segments written on this UTC day or later.
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
    """Return the labels below `directory`, only the last received for each (request_id, row, output)."""
    tables = _read_all(list_segments(directory, LABELS, since=since))
    return latest_labels(pa.concat_tables(tables) if tables else LABEL_SCHEMA.empty_table())


def latest_labels(labels: pa.Table) -> pa.Table:
    """Return only the last received label for each (request_id, row, output); of equal times, the later row."""
    ordered = labels.append_column("_order", pa.array(range(labels.num_rows), pa.int64()))
    ordered = ordered.sort_by([("received_at", "ascending"), ("_order", "ascending")])
    ordered = ordered.set_column(
        ordered.schema.get_field_index("_order"), "_order", pa.array(range(labels.num_rows), pa.int64())
    )
    last = ordered.group_by([*_KEY, OUTPUT]).aggregate([("_order", "max")])["_order_max"]
    return ordered.take(last.combine_chunks().sort()).drop_columns(["_order"])


def join_labels(captured: pa.Table, labels: pa.Table) -> pa.Table:
    """Return `captured` with a column `label`, which is null without a label.

    Rows keep their order. Labels for requests that were not captured are left out, and so are labels of whole requests
    and of single outputs (those with an `output`).

    Args:
        captured: captured rows.
        labels: one row for each (request_id, row, output).
    """
    labels = labels.filter(pc.field("row").is_valid() & pc.field(OUTPUT).is_null())
    # Arrow cannot join tables with structs, so only the key and the position are joined.
    position = pa.array(range(captured.num_rows), pa.int64())
    keys = captured.select(_KEY).append_column("_position", position)
    joined = keys.join(labels.select([*_KEY, "label"]), keys=_KEY, join_type="left outer").sort_by("_position")
    return captured.append_column("label", joined["label"])
