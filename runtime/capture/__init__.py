"""Stores served requests and the labels that arrive later, and reads them back.

    <directory>/capture/date=YYYY-MM-DD/<uuid7>.parquet   one row for each row served
    <directory>/labels/date=YYYY-MM-DD/<uuid7>.parquet    one row for each label received
    <directory>/journal/<uuid7>.arrows                    rows of a capture segment that is not written yet

A segment is written under a hidden name, synced, then renamed: a reader never sees half a segment. A segment changes
only when rows are erased; it is then replaced as a whole. `date` is the UTC day of writing. The name of a capture
segment contains the time of its first request, the name of a label segment the time of writing.

    seen: set[str] = set()
    while True:
        for segment in new_segments(directory, CAPTURE, seen):
            table = read_segment(segment)   # features and outputs are structs
            seen.add(segment.name)

The schemas have a version, `tidemill.schema` in the metadata. Version 2 adds answers and labels of whole requests
(`answer`, a null `row`) and labels of single outputs (`output`). `read_segment` returns older segments in version 2.

Each module loads on first use, so a model server, which only writes, stays small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.lazy import lazy_exports

__all__ = [
    "ANSWER",
    "CAPTURE",
    "KEY",
    "LABELS",
    "LABEL_SCHEMA",
    "OUTPUT",
    "SCHEMA",
    "TIME",
    "Forgotten",
    "Found",
    "Journal",
    "Kind",
    "Omitted",
    "Privacy",
    "Recovered",
    "Segment",
    "capture_schema",
    "day_folders",
    "find",
    "forget",
    "forget_labels",
    "is_hashed",
    "join_labels",
    "journals",
    "latest_labels",
    "list_segments",
    "names_in",
    "new_segments",
    "omitted_of",
    "read_capture",
    "read_journal",
    "read_labels",
    "read_segment",
    "recover",
    "remove_old",
    "remove_partial",
    "schema_version",
    "write_segment",
]

if TYPE_CHECKING:
    from .columns import (
        ANSWER,
        KEY,
        SCHEMA,
        TIME,
        Omitted,
        Privacy,
        capture_schema,
        is_hashed,
        omitted_of,
        schema_version,
    )
    from .erasure import Forgotten, forget, forget_labels
    from .journal import Journal, Recovered, journals, read_journal, recover
    from .lookup import Found, find
    from .reading import join_labels, latest_labels, read_capture, read_labels
    from .retention import remove_old
    from .segments import (
        CAPTURE,
        LABEL_SCHEMA,
        LABELS,
        OUTPUT,
        Kind,
        Segment,
        day_folders,
        list_segments,
        names_in,
        new_segments,
        read_segment,
        remove_partial,
        write_segment,
    )
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "columns": [
                "ANSWER",
                "KEY",
                "SCHEMA",
                "TIME",
                "Omitted",
                "Privacy",
                "capture_schema",
                "is_hashed",
                "omitted_of",
                "schema_version",
            ],
            "erasure": ["Forgotten", "forget", "forget_labels"],
            "journal": ["Journal", "Recovered", "journals", "read_journal", "recover"],
            "lookup": ["Found", "find"],
            "reading": ["join_labels", "latest_labels", "read_capture", "read_labels"],
            "retention": ["remove_old"],
            "segments": [
                "CAPTURE",
                "Kind",
                "LABELS",
                "LABEL_SCHEMA",
                "OUTPUT",
                "Segment",
                "day_folders",
                "list_segments",
                "names_in",
                "new_segments",
                "read_segment",
                "remove_partial",
                "write_segment",
            ],
        },
    )
