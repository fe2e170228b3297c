"""Finds the days of traffic that are over and labelled, so that they can be published."""

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
from .segment_reader import SegmentReader, bounds, keys, read, served_rows, struct_columns
from .settings import MonitoredModel

COVERAGE = 0.99
"""Share of labelled rows at which a day is complete."""

QUIET_SECONDS = 30.0
"""Seconds without new labels before a day that waited long enough is due."""

EVENT_TIME = "event_time"

_EARLY_SECONDS = 3600.0
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass
class Day:
    """The traffic of one day of event time (UTC).

    Attributes:
        rows, labelled: number of rows, and of labelled rows.
        received: when its last row arrived.
        labels_came: when its last label was read, in seconds since the epoch.
        segments: the capture segments with rows of the day.
        omitted: features that the capture omitted or hashed in any of its rows.
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
        """Share of the rows that have a label."""
        return self.labelled / self.rows if self.rows else 0.0


class Days:
    """Reads the capture of one model, and tells which days are due for publishing.

    A day is over when a later one was seen, or when none of its rows arrived for the label delay. It is due when it is
    over and 99 % of its rows have a label. It is also due when the label delay has passed and no label arrived for half
    a minute; rows without a label are then not published. A day without any label by then is dropped.

    Each segment is read once, and only counts and the keys of unlabelled rows are kept in memory. After a restart the
    capture is read again, except segments whose footers show that all their days are done. Rows and labels that arrive
    after their day was published are not published.

    Args:
        model: the monitored model.
        done: days that are finished.
    """

    def __init__(self, model: MonitoredModel, done: Collection[date]) -> None:
        self.model = model
        self._done = set(done)
        self.open: dict[date, Day] = {}
        self.newest: datetime | None = None
        self._capture = SegmentReader(Path(model.capture), CAPTURE)
        self._labels: SegmentReader | None = None
        self._unlabelled: dict[int, Day] = {}
        self._early: dict[int, float] = {}

    def update(self) -> None:
        """Read the new segments."""
        for segment in self._capture.segments():
            known = bounds(segment)
            if known is not None and self._all_done(known.first_event.date(), known.last_event.date()):
                self._advance_newest(
                    known.last_event if known.last_event <= datetime.now(UTC) + timedelta(days=1) else None
                )
                continue
            table = read(segment, ["request_id", "row", "received_at", "event_time", "role"])
            if table is not None:
                self._take_rows(segment, served_rows(table, self.model.alias))
        if self._labels is None:
            first = min((segment.day for day in self.open.values() for segment in day.segments), default=None)
            today = datetime.now(UTC).date()
            self._labels = SegmentReader(Path(self.model.capture), LABELS, since=(first or today) - timedelta(days=1))
        for _, table in self._labels.tables():
            self._take_labels(table)

    def due(self, at: float | None = None) -> list[Day]:
        """Return the days that are due at `at` (seconds since the epoch, default now), oldest first."""
        moment = time.time() if at is None else at
        found: list[Day] = []
        for day in sorted(self.open.values(), key=lambda day: day.day):
            over, old = self._age(day, moment)
            quiet = moment - day.labels_came > min(QUIET_SECONDS, self.model.label_delay)
            if day.labelled and ((over and day.coverage >= COVERAGE) or (old and quiet)):
                found.append(day)
        return found

    def drop_unlabelled(self, at: float | None = None) -> list[date]:
        """Drop the days that received no label within the label delay, and return them."""
        moment = time.time() if at is None else at
        waited = timedelta(seconds=self.model.label_delay)
        now = datetime.fromtimestamp(moment, UTC)
        dropped = [
            day.day
            for day in self.open.values()
            if not day.labelled and self._age(day, moment)[1] and now - day.received > waited
        ]
        self.finish(dropped)
        return dropped

    def finish(self, days: Collection[date]) -> None:
        """Mark `days` as done and ignore them from now on."""
        self._done.update(days)
        for day in days:
            self.open.pop(day, None)
        self._unlabelled = {key: day for key, day in self._unlabelled.items() if day.day not in self._done}

    def table(self, days: Collection[Day]) -> pa.Table:
        """Return the labelled rows of `days` with features, target and event time, in a fixed order."""
        segments = sorted({segment for day in days for segment in day.segments})
        wanted = {day.day for day in days}
        captured = [
            table
            for segment in segments
            if (found := read(segment)) is not None
            and (table := _rows_of_days(served_rows(found, self.model.alias), wanted)).num_rows
        ]
        since = segments[0].day - timedelta(days=1)
        labels = [table for _, table in SegmentReader(Path(self.model.capture), LABELS, since=since).tables()]
        if not captured or not labels:
            return pa.table({})
        return _join_labels(captured, pa.concat_tables(labels), self.model.target)

    def _age(self, day: Day, moment: float) -> tuple[bool, bool]:
        """Return whether `day` is over, and whether its label delay has passed."""
        delay = timedelta(seconds=self.model.label_delay)
        silent = datetime.fromtimestamp(moment, UTC) - day.received > delay
        end = datetime.combine(day.day, datetime.min.time(), UTC) + timedelta(days=1)
        newest = self.newest or end - delay
        return newest >= end or silent, (newest >= end and newest >= end + delay) or silent

    def _all_done(self, first: date, last: date) -> bool:
        length = (last - first).days
        return length < 400 and all(first + timedelta(days=index) in self._done for index in range(length + 1))

    def _advance_newest(self, event: datetime | None) -> None:
        if event is not None and (self.newest is None or event > self.newest):
            self.newest = event

    def _take_rows(self, segment: Segment, table: pa.Table) -> None:
        found = keys(table).tolist()
        omitted = omitted_of(table.schema).names
        events: list[datetime] = table["event_time"].to_pylist()
        received: list[datetime] = table["received_at"].to_pylist()
        for key, event, arrived in zip(found, events, received, strict=True):
            self._advance_newest(event)
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
                # Its row may be in a later segment. Usually its day is done, or the label was repeated.
                self._early[key] = now
            else:
                day.labelled += 1
                day.labels_came = now
        if len(self._early) > 20_000:
            self._early = {key: seen for key, seen in self._early.items() if now - seen < _EARLY_SECONDS}


def _rows_of_days(table: pa.Table, days: Collection[date]) -> pa.Table:
    names = table["event_time"].to_numpy().astype("datetime64[D]")
    return table.filter(pa.array(np.isin(names, np.array(sorted(days), dtype="datetime64[D]"))))


def _join_labels(captured: list[pa.Table], labels: pa.Table, target: str) -> pa.Table:
    last = latest_labels(labels)
    known = dict(zip(keys(last).tolist(), last["label"].to_pylist(), strict=True))
    parts: list[pa.Table] = []
    for table in captured:
        given = [known.get(key) for key in keys(table).tolist()]
        columns = struct_columns(table, "features")
        # If the model has a feature of that name, keep the feature.
        for name, values in ((target, pa.array(given, pa.float64())), (EVENT_TIME, table["event_time"])):
            if name not in columns.column_names:
                columns = columns.append_column(name, values)
        order = {"_request": table["request_id"], "_row": table["row"], "_event": table["event_time"]}
        for name, values in order.items():
            columns = columns.append_column(name, values)
        parts.append(columns)
    joined = pa.concat_tables(parts, promote_options="permissive")
    joined = joined.filter(pc.field(target).is_valid())
    joined = joined.sort_by([(name, "ascending") for name in ("_event", "_request", "_row")])
    joined = joined.drop_columns(["_request", "_row", "_event"])
    values = joined[target].to_numpy()
    if np.all(values == np.floor(values)):
        # Class labels are integers in the lake too.
        joined = joined.set_column(joined.column_names.index(target), target, joined[target].cast(pa.int64()))
    return joined
