"""Versioned data: pinned reads, gated writes, and labels in bulk.

from tidemill.runtime import data

frame = data.read("flights/main/departures", validated=True).frame()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.lazy import lazy_exports

if TYPE_CHECKING:
    from .dataset import (
        Dataset,
        LakeLike,
        Pinned,
        SentLabels,
        add,
        branch,
        brought_by,
        commit,
        exists,
        is_validated,
        newest_validated,
        publish,
        read,
        resolve,
        send_labels,
        split,
        write,
    )
    from .lake_client import (
        Lake,
    )

__all__ = [
    "Dataset",
    "Lake",
    "LakeLike",
    "Pinned",
    "SentLabels",
    "add",
    "branch",
    "brought_by",
    "commit",
    "exists",
    "is_validated",
    "newest_validated",
    "publish",
    "read",
    "resolve",
    "send_labels",
    "split",
    "write",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "dataset": [
            "Dataset",
            "LakeLike",
            "Pinned",
            "SentLabels",
            "add",
            "branch",
            "brought_by",
            "commit",
            "exists",
            "is_validated",
            "newest_validated",
            "publish",
            "read",
            "resolve",
            "send_labels",
            "split",
            "write",
        ],
        "lake_client": ["Lake"],
    },
)
