"""The recent rows of the serving version with their labels, which are compared with the reference."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..capture import CAPTURE, LABELS, is_hashed, omitted_of
from .segment_reader import Bounds, SegmentReader, bounds, keys, read, served_rows, struct_columns
from .settings import MonitoredModel

SAMPLE_ROWS = 50_000
"""Maximum rows in memory. Beyond it, only a share of the rows is kept, chosen by a hash of their keys."""

_EARLY = pd.Timedelta(hours=1)
_ALL = 2.0**64


@dataclass(frozen=True)
class Quality:
    """Quality of the predictions for the labelled rows of a window."""

    metric: str
    value: float
    rows: int


class Window:
    """The rows of one version whose event time is within `model.window` of the newest captured events.

    The window ends at the `model.min_rows`-th newest event. A few rows without an event time count as happening when
    they arrived; this rule keeps them from moving the window away from the traffic (a replay, a backfill, a probe).

    `update` reads only new segments. At most `limit` rows are kept: beyond it, a row stays if the hash of its key is
    below a bound, which is halved as needed. So every part of the window keeps the same share of its rows, and a label
    is kept exactly if its row is.

    Args:
        model: the monitored model.
        version: the version whose rows count.
        limit: maximum rows to keep.
    """

    def __init__(self, model: MonitoredModel, version: str, *, limit: int = SAMPLE_ROWS) -> None:
        self.model = model
        self.version = version
        self._limit = limit
        self._restart()

    def _restart(self) -> None:
        self._latest: list[datetime] = []
        self._share = 1.0
        self._frame: pd.DataFrame | None = None
        self._omissions: list[frozenset[str]] = []
        self._capture = SegmentReader(self.model.capture, CAPTURE)
        self._labels = SegmentReader(self.model.capture, LABELS)
        self._label_of: dict[int, float] = {}
        self._label_time: dict[int, pd.Timestamp] = {}

    @property
    def newest(self) -> datetime | None:
        """End of the window, or None before there are `model.min_rows` events."""
        return self._latest[-1] if len(self._latest) == self.model.min_rows else None

    def update(self) -> bool:
        """Read the new segments; return whether the window changed."""
        changed = self._take_rows()
        changed = self._take_labels() or changed
        if self._share < 1.0 and self.sampled < self._limit // 4:
            # The traffic dropped, so a larger share fits: read it again.
            self._restart()
            self._take_rows()
            self._take_labels()
        return changed

    @property
    def sampled(self) -> int:
        """Number of rows in memory."""
        return 0 if self._frame is None else len(self._frame)

    @property
    def rows(self) -> int:
        """Number of rows of the window; an estimate if only a share is kept."""
        return round(self.sampled / self._share)

    @property
    def labelled(self) -> int:
        """Number of labelled rows of the window; an estimate if only a share is kept."""
        return round(int(np.sum(~np.isnan(self._labels_of_rows()))) / self._share)

    @property
    def oldest(self) -> datetime | None:
        """Time of the first event in the window."""
        if self._frame is None or self._frame.empty:
            return None
        return self._frame["_event_time"].min().to_pydatetime()

    def features(self) -> pd.DataFrame:
        """Return the features of the rows in memory, except the omitted ones."""
        if self._frame is None:
            return pd.DataFrame()
        own = ["_key", "_event_time", "_score", "_omitted"]
        return self._frame.drop(columns=[*own, *(name for name in self.omitted if name in self._frame.columns)])

    @property
    def omitted(self) -> frozenset[str]:
        """Features that the capture omitted or hashed in any row of the window."""
        if self._frame is None:
            return frozenset()
        present: list[int] = self._frame["_omitted"].unique().tolist()
        return frozenset[str]().union(*(self._omissions[index] for index in present))

    def quality(self, least: int) -> Quality | None:
        """Return the ROC AUC (scikit-learn), or None with fewer than `least` labelled rows or only one class."""
        if self._frame is None:
            return None
        labels = self._labels_of_rows()
        scores = self._frame["_score"].to_numpy(dtype="float64")
        known = ~np.isnan(labels) & ~np.isnan(scores)
        if known.sum() < least or {*labels[known].tolist()} != {0.0, 1.0}:
            return None
        from sklearn.metrics import roc_auc_score

        return Quality("roc_auc", float(roc_auc_score(labels[known], scores[known])), int(known.sum()))

    def _labels_of_rows(self) -> NDArray[np.float64]:
        """Return the label of each row in memory, NaN if it has none."""
        rows: list[int] = [] if self._frame is None else self._frame["_key"].tolist()
        return np.array([self._label_of.get(key, np.nan) for key in rows], dtype="float64")

    def _take_rows(self) -> bool:
        frames: list[pd.DataFrame] = []
        moved = False
        # Newest first: then the footers alone identify segments that are too old.
        for segment in reversed(self._capture.segments()):
            if self._is_known_to_miss(bounds(segment)):
                continue
            table = read(segment)
            if table is None or not (table := served_rows(table, self.model.alias)).num_rows:
                continue
            times = cast("list[datetime]", table["event_time"].to_pylist())
            latest = heapq.nlargest(self.model.min_rows, [*self._latest, *times])
            moved = moved or latest != self._latest
            self._latest = latest
            own = table.filter(pc.field("version") == self.version)
            if own.num_rows:
                frames.append(self._thinned(self._as_frame(own)))
        if frames:
            self._frame = pd.concat([*([] if self._frame is None else [self._frame]), *frames], ignore_index=True)
        if self._frame is not None and self.newest is not None and (frames or moved):
            self._frame = self._trimmed(self._frame, self.newest - self._length)
        return bool(frames) or moved

    def _as_frame(self, table: pa.Table) -> pd.DataFrame:
        outputs = struct_columns(table, "outputs")
        score = outputs["score"].to_pandas() if "score" in outputs.column_names else np.nan
        features = struct_columns(table, "features")
        hashed = [field.name for field in features.schema if is_hashed(field)]
        omitted = omitted_of(table.schema).names
        if omitted not in self._omissions:
            self._omissions.append(omitted)
        return (
            features.drop_columns(hashed)
            .to_pandas()
            .assign(
                _key=keys(table),
                _event_time=table["event_time"].to_pandas(),
                _score=score,
                _omitted=self._omissions.index(omitted),
            )
        )

    def _is_known_to_miss(self, known: Bounds | None) -> bool:
        if known is None or self.newest is None or known.last_event > self.newest:
            return False
        foreign = not known.first_version <= self.version <= known.last_version
        return foreign or known.last_event < self.newest - self._length

    def _trimmed(self, frame: pd.DataFrame, since: datetime) -> pd.DataFrame:
        kept = frame.loc[frame["_event_time"] >= since]
        while len(kept) > self._limit:
            self._share /= 2
            kept = self._thinned(kept)
        return kept.reset_index(drop=True)

    @property
    def _length(self) -> timedelta:
        return timedelta(seconds=self.model.window)

    def _thinned(self, frame: pd.DataFrame) -> pd.DataFrame:
        if self._share == 1.0:
            return frame
        return frame.loc[frame["_key"] < np.uint64(_ALL * self._share)]

    def _take_labels(self) -> bool:
        changed = False
        for _, table in self._labels.tables():
            found = keys(table)
            kept = np.ones(len(found), bool) if self._share == 1.0 else found < np.uint64(_ALL * self._share)
            labels: list[float] = table["label"].to_pylist()
            times = table["received_at"].to_pandas()
            # In order of writing, so that the last label of a row wins.
            for index in np.flatnonzero(kept):
                key = int(found[index])
                self._label_of[key] = labels[index]
                self._label_time[key] = times.iloc[index]
            changed = True
        if changed and len(self._label_of) > 2 * self.sampled + 20_000:
            self._forget_labels()
        return changed

    def _forget_labels(self) -> None:
        """Drop labels without a row in the window, except recent ones, whose rows may still arrive."""
        newest = max(self._label_time.values())
        rows: set[Any] = set() if self._frame is None else set(self._frame["_key"].tolist())
        gone = [key for key, time in self._label_time.items() if key not in rows and newest - time > _EARLY]
        for key in gone:
            del self._label_of[key], self._label_time[key]
