"""Finds the days of traffic that are over and labelled, so that they can be published."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..capture import CAPTURE, KEY, LABELS, Segment, omitted_of
from ..common.target import LabelProblem, Target
from .capture_health import CaptureHealth
from .key_share import cap_shares
from .labels import UNKNOWN, LabelBook, is_number, labels_of_rows, problem_of
from .segment_reader import FUTURE, SegmentReader, bounds, keys, read, served_rows, struct_columns
from .settings import MonitoredModel
from .window import COVERAGE

QUIET_SECONDS = 30.0
"""Seconds without new labels before a day that waited long enough is due."""

EVENT_TIME = "event_time"

_EARLY_SECONDS = 3600.0
_LARGEST_INTEGER = float(1 << 53)
_OWN = ["_request", "_row", "_event", "_caller", "_key", "_label", "_sender"]
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


@dataclass(frozen=True)
class LabelledRows:
    """The rows of a window to publish.

    Attributes:
        table: features, target and event time.
        predictions, labels: name of the API key -> number of rows whose request, or whose label, it sent.
        capped: name of the API key -> number of rows dropped because the key has too large a share.
        dropped: reason -> number of rows dropped because their label is not usable.
    """

    table: pa.Table
    predictions: Mapping[str, int] = field(default_factory=dict[str, int])
    labels: Mapping[str, int] = field(default_factory=dict[str, int])
    capped: Mapping[str, int] = field(default_factory=dict[str, int])
    dropped: Mapping[LabelProblem, int] = field(default_factory=dict["LabelProblem", int])


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
        health: notes segments that cannot be read.

    Attributes:
        newest: the newest event. An event counts at the latest when it arrived: a caller may name any time for it, and
            one row from the future must not end the day of all others.
        corrections: number of labels that were read for rows which were labelled already, or are unknown. If it
            changes, the label of a row may have changed, or a dispute may be settled.
    """

    def __init__(self, model: MonitoredModel, done: Collection[date], health: CaptureHealth | None = None) -> None:
        self.model = model
        self._health = health
        self._done = set(done)
        self.open: dict[date, Day] = {}
        self.newest: datetime | None = None
        self.corrections = 0
        self._capture = SegmentReader(Path(model.capture), CAPTURE, health=health)
        self._labels: SegmentReader | None = None
        self._unlabelled: dict[int, Day] = {}
        self._early: dict[int, float] = {}

    def update(self) -> None:
        """Read the new segments."""
        for segment in self._capture.segments():
            known = bounds(segment)
            if known is not None and self._all_done(known.first_event.date(), known.last_event.date()):
                now = datetime.now(UTC)
                if known.last_event <= now + FUTURE:
                    self._advance_newest(min(known.last_event, now))
                continue
            table = read(segment, ["request_id", "row", "received_at", "event_time", "role"], health=self._health)
            if table is not None:
                self._take_rows(segment, served_rows(table, self.model.alias))
        if self._labels is None:
            first = min((segment.day for day in self.open.values() for segment in day.segments), default=None)
            today = datetime.now(UTC).date()
            since = (first or today) - timedelta(days=1)
            self._labels = SegmentReader(Path(self.model.capture), LABELS, since=since, health=self._health)
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

    def labelled_rows(self, days: Collection[Day], target: Target | None = None) -> LabelledRows:
        """Return the labelled rows of `days` with features, target and event time, in a fixed order.

        Args:
            days: the days.
            target: the contract of the labels; rows with labels of other classes are dropped.
        """
        segments = sorted({segment for day in days for segment in day.segments})
        wanted = {day.day for day in days}
        captured = [
            table
            for segment in segments
            if (found := read(segment, health=self._health)) is not None
            and (table := _rows_of_days(served_rows(found, self.model.alias), wanted)).num_rows
        ]
        if not captured:
            return LabelledRows(pa.table({}))
        since = segments[0].day - timedelta(days=1)
        book = LabelBook()
        for _, table in SegmentReader(Path(self.model.capture), LABELS, since=since, health=self._health).tables():
            book.add(table)
        return _join(captured, book, target, self.model)

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

    def _advance_newest(self, event: datetime) -> None:
        if self.newest is None or event > self.newest:
            self.newest = event

    def _take_rows(self, segment: Segment, table: pa.Table) -> None:
        found = keys(table).tolist()
        omitted = omitted_of(table.schema).names
        events: list[datetime] = table["event_time"].to_pylist()
        received: list[datetime] = table["received_at"].to_pylist()
        for key, event, arrived in zip(found, events, received, strict=True):
            self._advance_newest(min(event, arrived))
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
        table = labels_of_rows(table)
        usable = table.filter(pa.array([is_number(given) for given in table["label"].to_pylist()], pa.bool_()))
        self.corrections += table.num_rows - usable.num_rows
        for key in keys(usable).tolist():
            day = self._unlabelled.pop(key, None)
            if day is None:
                # Its row may be in a later segment. Usually its day is done, or the label was repeated.
                self._early[key] = now
                self.corrections += 1
            else:
                day.labelled += 1
                day.labels_came = now
        if len(self._early) > 20_000:
            self._early = {key: seen for key, seen in self._early.items() if now - seen < _EARLY_SECONDS}


def _rows_of_days(table: pa.Table, days: Collection[date]) -> pa.Table:
    names = table["event_time"].to_numpy().astype("datetime64[D]")
    return table.filter(pa.array(np.isin(names, np.array(sorted(days), dtype="datetime64[D]"))))


def _join(captured: list[pa.Table], book: LabelBook, target: Target | None, model: MonitoredModel) -> LabelledRows:
    """Join `captured` with its usable labels, cap the share of each API key, and put the rows into a fixed order."""
    rows = pa.concat_tables([_with_order(table, model.target) for table in captured], promote_options="permissive")
    dropped: Counter[LabelProblem] = Counter()
    values: list[float | None] = []
    senders: list[str | None] = []
    for key in rows["_key"].to_pylist():
        label = book.get(key)
        problem = problem_of(label, target, allow_new=model.allow_new_labels) if label is not None else None
        if problem is not None:
            dropped[problem] += 1
        values.append(label.value if label is not None and problem is None else None)
        senders.append(label.sender if label is not None else None)
    rows = rows.append_column("_label", pa.array(values, pa.float64()))
    rows = rows.append_column("_sender", pa.array(senders, pa.string()))
    rows = rows.filter(pc.field("_label").is_valid())
    capped = cap_shares(rows["_sender"].to_pylist(), rows["_key"].to_numpy(), model.max_share_per_key)
    rows = rows.filter(pa.array(capped.kept))
    rows = rows.sort_by([(name, "ascending") for name in ("_event", "_request", "_row")])
    if not any(table.schema.field("features").type.get_field_index(model.target) >= 0 for table in captured):
        # If the model has a feature of that name, keep the feature.
        rows = _with_target(rows, model.target)
    return LabelledRows(
        rows.drop_columns(_OWN),
        _count(rows["_caller"]),
        _count(rows["_sender"]),
        capped.dropped,
        dropped,
    )


def _with_order(table: pa.Table, target: str) -> pa.Table:
    """Return the features of `table`, with columns that identify, order and attribute its rows."""
    columns = struct_columns(table, "features")
    if target not in columns.column_names:
        # Holds the place of the target, before the event time.
        columns = columns.append_column(target, pa.nulls(table.num_rows, pa.float64()))
    if EVENT_TIME not in columns.column_names:
        columns = columns.append_column(EVENT_TIME, table["event_time"])
    own = {
        "_request": table["request_id"],
        "_row": table["row"],
        "_event": table["event_time"],
        "_caller": table[KEY],
        "_key": pa.array(keys(table)),
    }
    for name, values in own.items():
        columns = columns.append_column(name, values)
    return columns


def _with_target(rows: pa.Table, target: str) -> pa.Table:
    """Return `rows` with the labels as the target."""
    labels = rows["_label"]
    values = labels.to_numpy()
    if np.all((values == np.floor(values)) & (np.abs(values) < _LARGEST_INTEGER)):
        # Class labels are integers in the lake too.
        labels = labels.cast(pa.int64())
    return rows.set_column(rows.column_names.index(target), target, labels)


def _count(names: pa.ChunkedArray) -> dict[str, int]:
    return dict(sorted(Counter(name or UNKNOWN for name in names.to_pylist()).items()))
