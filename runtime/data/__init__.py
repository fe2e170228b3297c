"""Versioned data: pinned reads, gated writes, and labels in bulk.

Settings come from TIDEMILL_RUNTIME unless a function gets `lake`:

    from tidemill.runtime import data

    frame = data.read("flights/main/departures", validated=True).to_pandas()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.lazy import lazy_exports

__all__ = [
    "Dataset",
    "Lake",
    "LakeLike",
    "ObjectInfo",
    "Pinned",
    "Restored",
    "SentLabels",
    "UnvalidatedCommit",
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
    "restore",
    "send_labels",
    "split",
    "unvalidated",
    "write",
]

if TYPE_CHECKING:
    from .dataset import (
        Dataset,
        LakeLike,
        Pinned,
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
        split,
        write,
    )
    from .labels import SentLabels, send_labels
    from .lake_client import Lake, ObjectInfo
    from .recovery import Restored, UnvalidatedCommit, restore, unvalidated
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "dataset": __all__,
            "labels": ["SentLabels", "send_labels"],
            "lake_client": ["Lake", "ObjectInfo"],
            "recovery": ["Restored", "UnvalidatedCommit", "restore", "unvalidated"],
        },
    )
