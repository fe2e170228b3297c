"""Deletes captured rows and labels that are too old, one day at a time."""

from __future__ import annotations

import contextlib
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ..common.ids import uuid7
from .segments import CAPTURE, LABELS, day_folders

_REMOVED = ".removed-"


def remove_old(directory: Path, days: float, *, now: datetime | None = None) -> int:
    """Remove the captures and labels of days that ended at least `days` days ago; return the number of folders.

    A rename hides a day from all readers at once. The current day is never removed. Several processes may call this at
    the same time.

    Raises:
        OSError: a folder cannot be removed.
    """
    moment = now or datetime.now(UTC)
    removed = 0
    for kind in (CAPTURE, LABELS):
        for day, folder in day_folders(directory, kind):
            end = datetime.combine(day, datetime.min.time(), UTC) + timedelta(days=1)
            if end > moment or moment - end < timedelta(days=days):
                continue
            with contextlib.suppress(FileNotFoundError):
                folder.rename(folder.with_name(f"{_REMOVED}{uuid7()}"))
                removed += 1
        for left in (directory / kind).glob(f"{_REMOVED}*"):
            shutil.rmtree(left, ignore_errors=True)
    return removed
