"""What serving keeps of its traffic and of the labels which come later, and how it is read back.

    <directory>/capture/date=YYYY-MM-DD/<uuid7>.parquet   one row for each row served
    <directory>/labels/date=YYYY-MM-DD/<uuid7>.parquet    one row for each label received
    <directory>/journal/<uuid7>.arrows                    rows of a capture segment which is not written yet

A segment is written whole under a hidden name, synced, then renamed: a reader never sees half a segment. One which is
there changes only when rows are forgotten, as whole as it came. `date` is the UTC day it was written on. The name of a
capture segment holds the time of its first request, that of a label segment the time of writing.

    seen: set[str] = set()
    while True:
        for segment in new_segments(directory, CAPTURE, seen):
            table = read_segment(segment)   # features and outputs are structs
            seen.add(segment.name)

The parts are loaded when they are first used: a model server, which only writes, stays small.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidemill.runtime.capture.columns import Omitted, capture_schema, omitted_of
    from tidemill.runtime.capture.finding import Found, find
    from tidemill.runtime.capture.forgetting import Forgotten, forget
    from tidemill.runtime.capture.journal import Journal, Recovered, journals, read_journal, recover
    from tidemill.runtime.capture.reading import (
        join_labels,
        latest_labels,
        read_capture,
        read_labels,
    )
    from tidemill.runtime.capture.retention import remove_old
    from tidemill.runtime.capture.segments import (
        CAPTURE,
        LABEL_SCHEMA,
        LABELS,
        Kind,
        Segment,
        list_segments,
        new_segments,
        read_segment,
        remove_partial,
        write_segment,
    )

__all__ = [
    "CAPTURE",
    "LABELS",
    "LABEL_SCHEMA",
    "Forgotten",
    "Found",
    "Journal",
    "Kind",
    "Omitted",
    "Recovered",
    "Segment",
    "capture_schema",
    "find",
    "forget",
    "join_labels",
    "journals",
    "latest_labels",
    "list_segments",
    "new_segments",
    "omitted_of",
    "read_capture",
    "read_journal",
    "read_labels",
    "read_segment",
    "recover",
    "remove_old",
    "remove_partial",
    "write_segment",
]

_PARTS = {
    "columns": ("Omitted", "capture_schema", "omitted_of"),
    "finding": ("Found", "find"),
    "forgetting": ("Forgotten", "forget"),
    "journal": ("Journal", "Recovered", "journals", "read_journal", "recover"),
    "reading": ("join_labels", "latest_labels", "read_capture", "read_labels"),
    "retention": ("remove_old",),
    "segments": (
        "CAPTURE",
        "LABELS",
        "LABEL_SCHEMA",
        "Kind",
        "Segment",
        "list_segments",
        "new_segments",
        "read_segment",
        "remove_partial",
        "write_segment",
    ),
}
_HOME = {name: part for part, names in _PARTS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
