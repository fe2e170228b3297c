"""The health of the files of a capture: segments that cannot be read, and segments that were deleted."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from ..capture import CAPTURE, LABELS, Kind, Segment, day_folders, names_in

_log = logging.getLogger(__name__)
KINDS: tuple[Kind, ...] = (CAPTURE, LABELS)


@dataclass
class _Listing:
    """The segments of one day when its folder was last listed; only their number for a past day."""

    changed: int
    count: int
    names: frozenset[str] | None


class CaptureHealth:
    """Records unreadable segments, and counts segments that were deleted since this object was created.

    Days beyond the retention time are deleted by the model server, and do not count.

    Args:
        directory: the capture folder.
        retention_days: age at which days are deleted; None keeps them.

    Attributes:
        lost: number of lost segments by kind.
        lost_at: when the last loss was seen, or None.
    """

    def __init__(self, directory: Path, retention_days: float | None = None) -> None:
        self._directory = directory
        self._retention = retention_days
        self._unreadable: dict[str, Segment] = {}
        self._listed: dict[tuple[Kind, date], _Listing] = {}
        self.lost: Counter[Kind] = Counter()
        self.lost_at: datetime | None = None

    def add_unreadable(self, segment: Segment, error: Exception) -> None:
        """Record that `segment` cannot be read."""
        if segment.name not in self._unreadable:
            self._unreadable[segment.name] = segment
            _log.error("cannot read a capture segment", extra={"segment": str(segment.path), "error": str(error)})

    def unreadable(self, kind: Kind) -> int:
        """Return the number of unreadable segments of `kind`; deleted ones no longer count."""
        self._unreadable = {name: segment for name, segment in self._unreadable.items() if segment.path.exists()}
        return sum(segment.kind == kind for segment in self._unreadable.values())

    def check(self, now: datetime | None = None) -> None:
        """Compare the folders with the last listing."""
        moment = now or datetime.now(UTC)
        for kind in KINDS:
            lost = self._check(kind, moment)
            if lost:
                self.lost[kind] += lost
                self.lost_at = moment
                extra = {"directory": str(self._directory), "kind": kind, "segments": lost}
                _log.error("segments of the capture were deleted", extra=extra)

    def _check(self, kind: Kind, moment: datetime) -> int:
        folders = dict(day_folders(self._directory, kind))
        lost = 0
        for (of, day), before in list(self._listed.items()):
            if of == kind and day not in folders:
                del self._listed[kind, day]
                lost += 0 if self._is_expired(day, moment) else before.count
        for day, folder in folders.items():
            try:
                changed = folder.stat().st_mtime_ns
            except FileNotFoundError:
                continue  # deleted just now; the next check counts it
            before = self._listed.get((kind, day))
            if before is not None and before.changed == changed:
                continue
            names = frozenset(names_in(folder))
            if before is not None:
                gone = before.count - len(names) if before.names is None else len(before.names - names)
                lost += max(0, gone)
            recent = moment.date() - day <= timedelta(days=1)
            self._listed[kind, day] = _Listing(changed, len(names), names if recent else None)
        return lost

    def _is_expired(self, day: date, moment: datetime) -> bool:
        end = datetime.combine(day, datetime.min.time(), UTC) + timedelta(days=1)
        return self._retention is not None and moment - end >= timedelta(days=self._retention)

    def notes(self) -> list[str]:
        """Return a sentence for each problem."""
        found = [
            f"{_segments(count, kind)} cannot be read; the monitor's log names them"
            for kind in KINDS
            if (count := self.unreadable(kind))
        ]
        if self.lost_at is not None:
            lost = " and ".join(_segments(self.lost[kind], kind) for kind in KINDS if self.lost[kind])
            found.append(f"{lost} were deleted (last detected {self.lost_at.isoformat(timespec='seconds')})")
        return found


_NOUNS: dict[Kind, str] = {CAPTURE: "capture segment", LABELS: "label segment"}


def _segments(count: int, kind: Kind) -> str:
    """Return the count with its noun, such as `3 label segments`."""
    return f"{count} {_NOUNS[kind]}{'' if count == 1 else 's'}"
