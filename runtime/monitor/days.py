"""Which days of the traffic are over and have their labels."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..capture import CAPTURE, LABELS, Segment, latest_labels, omitted_of
from .segment_reader import Follower, bounds, keys, read, served_rows, struct_columns
from .settings import MonitoredModel

__all__ = ["EVENT_TIME", "Day", "Days"]

COVERAGE = 0.99
"""Share of labelled rows at which a day waits no longer."""

QUIET_SECONDS = 30.0
"""A day which waited long enough is still not due while its labels are coming in."""

EVENT_TIME = "event_time"

_EARLY_SECONDS = 3600.0
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass
class Day:
    """What is known of the traffic of one day of event time (UTC).

    Attributes:
        rows, labelled: how many rows there are, and how many of them have a label.
        received: when its last row arrived.
        labels_came: when its last label was seen here, seconds since the epoch.
        segments: the capture segments with rows of the day.
        omitted: features which were left out of the capture, or hashed, for any of its rows.
    """

    day: date
    rows: int = 0
    labelled: int = 0
    received: datetime = _NEVER
    labels_came: float = 0.0
    segments: set[Segment] = field(default_factory=set[Segment])
    omitted: set[str] = field(default_factory=set[str])

    @property
    def coverage(self) -> float:
        """Share of the rows which have a label."""
        return self.labelled / self.rows if self.rows else 0.0


class Days:
    """Follows the capture of one model, and tells which days are due for publishing.

    A day is over when a later one was seen, or when nothing of it arrived for the label delay. It is due when it is
    over and 99 % of its rows have a label, or when it lies further back than the label delay and no label has come in
    for half a minute; what has no label by then stays unpublished. A day without any label by then is forgotten.

    It reads each segment once and keeps, besides counts, only the keys of rows without a label. After a restart the
    capture is read again, but for segments whose days are done, which their footers tell. Rows which arrive, and labels
    which come, after their day was published are not published any more.

    Args:
        model: what is watched.
        done: days which are no longer of interest.
    """

    def __init__(self, model: MonitoredModel, done: Collection[date]) -> None:
        self.model = model
        self._done = set(done)
        self.open: dict[date, Day] = {}
        self.newest: datetime | None = None
        self._capture = Follower(Path(model.capture), CAPTURE)
        self._labels: Follower | None = None
        self._unlabelled: dict[int, Day] = {}
        self._early: dict[int, float] = {}

    def update(self) -> None:
        """Take in what is new."""
        for segment in self._capture.segments():
            known = bounds(segment)
            if known is not None and self._all_done(known.first_event.date(), known.last_event.date()):
                self._saw(known.last_event if known.last_event <= datetime.now(UTC) + timedelta(days=1) else None)
                continue
            table = read(segment, ["request_id", "row", "received_at", "event_time", "role"])
            if table is not None:
                self._take_rows(segment, served_rows(table, self.model.alias))
        if self._labels is None:
            first = min((segment.day for day in self.open.values() for segment in day.segments), default=None)
            today = datetime.now(UTC).date()
            self._labels = Follower(Path(self.model.capture), LABELS, since=(first or today) - timedelta(days=1))
        for _, table in self._labels.tables():
            self._take_labels(table)

    def due(self, at: float | None = None) -> list[Day]:
        """Return the days which are due at `at` (seconds since the epoch, default now), the first day first."""
        moment = time.time() if at is None else at
        found: list[Day] = []
        for day in sorted(self.open.values(), key=lambda day: day.day):
            over, old = self._age(day, moment)
            quiet = moment - day.labels_came > min(QUIET_SECONDS, self.model.label_delay)
            if day.labelled and ((over and day.coverage >= COVERAGE) or (old and quiet)):
                found.append(day)
        return found

    def forget_unlabelled(self, at: float | None = None) -> list[date]:
        """Forget the days for which no label came in all the time there was; return them."""
        moment = time.time() if at is None else at
        waited = timedelta(seconds=self.model.label_delay)
        now = datetime.fromtimestamp(moment, UTC)
        gone = [
            day.day
            for day in self.open.values()
            if not day.labelled and self._age(day, moment)[1] and now - day.received > waited
        ]
        self.finish(gone)
        return gone

    def finish(self, days: Collection[date]) -> None:
        """Take `days` as done: nothing of them is watched any more."""
        self._done.update(days)
        for day in days:
            self.open.pop(day, None)
        self._unlabelled = {key: day for key, day in self._unlabelled.items() if day.day not in self._done}

    def table(self, days: Collection[Day]) -> pa.Table:
        """Return the labelled rows of `days`: features, target and event time, in a fixed order."""
        segments = sorted({segment for day in days for segment in day.segments})
        wanted = {day.day for day in days}
        captured = [
            table
            for segment in segments
            if (found := read(segment)) is not None
            and (table := _of_days(served_rows(found, self.model.alias), wanted)).num_rows
        ]
        since = segments[0].day - timedelta(days=1)
        labels = [table for _, table in Follower(Path(self.model.capture), LABELS, since=since).tables()]
        if not captured or not labels:
            return pa.table({})
        return _joined(captured, pa.concat_tables(labels), self.model.target)

    def _age(self, day: Day, moment: float) -> tuple[bool, bool]:
        """Return whether `day` is over, and whether it waited for labels long enough."""
        delay = timedelta(seconds=self.model.label_delay)
        silent = datetime.fromtimestamp(moment, UTC) - day.received > delay
        end = datetime.combine(day.day, datetime.min.time(), UTC) + timedelta(days=1)
        newest = self.newest or end - delay
        return newest >= end or silent, (newest >= end and newest >= end + delay) or silent

    def _all_done(self, first: date, last: date) -> bool:
        length = (last - first).days
        return length < 400 and all(first + timedelta(days=index) in self._done for index in range(length + 1))

    def _saw(self, event: datetime | None) -> None:
        if event is not None and (self.newest is None or event > self.newest):
            self.newest = event

    def _take_rows(self, segment: Segment, table: pa.Table) -> None:
        found = keys(table).tolist()
        omitted = omitted_of(table.schema).names
        events: list[datetime] = table["event_time"].to_pylist()
        received: list[datetime] = table["received_at"].to_pylist()
        for key, event, arrived in zip(found, events, received, strict=True):
            self._saw(event)
            name = event.date()
            if name in self._done:
                continue
            day = self.open.setdefault(name, Day(name))
            day.rows += 1
            day.received = max(day.received, arrived)
            day.segments.add(segment)
            day.omitted |= omitted
            if self._early.pop(key, None) is not None:
                day.labelled += 1
                day.labels_came = time.time()
            else:
                self._unlabelled[key] = day

    def _take_labels(self, table: pa.Table) -> None:
        now = time.time()
        for key in keys(table).tolist():
            day = self._unlabelled.pop(key, None)
            if day is None:
                # It may be ahead of its row's segment; most often its day is done, or it is said again.
                self._early[key] = now
            else:
                day.labelled += 1
                day.labels_came = now
        if len(self._early) > 20_000:
            self._early = {key: seen for key, seen in self._early.items() if now - seen < _EARLY_SECONDS}


def _of_days(table: pa.Table, days: Collection[date]) -> pa.Table:
    names = table["event_time"].to_numpy().astype("datetime64[D]")
    return table.filter(pa.array(np.isin(names, np.array(sorted(days), dtype="datetime64[D]"))))


def _joined(captured: list[pa.Table], labels: pa.Table, target: str) -> pa.Table:
    last = latest_labels(labels)
    known = dict(zip(keys(last).tolist(), last["label"].to_pylist(), strict=True))
    parts: list[pa.Table] = []
    for table in captured:
        given = [known.get(key) for key in keys(table).tolist()]
        columns = struct_columns(table, "features")
        # The model's own column of that name, if it has one, is what it was asked with.
        for name, values in ((target, pa.array(given, pa.float64())), (EVENT_TIME, table["event_time"])):
            if name not in columns.column_names:
                columns = columns.append_column(name, values)
        order = {"_request": table["request_id"], "_row": table["row"], "_event": table["event_time"]}
        for name, values in order.items():
            columns = columns.append_column(name, values)
        parts.append(columns)
    whole = pa.concat_tables(parts, promote_options="permissive")
    whole = whole.filter(pc.field(target).is_valid())
    whole = whole.sort_by([(name, "ascending") for name in ("_event", "_request", "_row")])
    whole = whole.drop_columns(["_request", "_row", "_event"])
    values = whole[target].to_numpy()
    if np.all(values == np.floor(values)):
        # Classes are whole numbers in the lake too.
        whole = whole.set_column(whole.column_names.index(target), target, whole[target].cast(pa.int64()))
    return whole
