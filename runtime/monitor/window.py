"""The rows which the serving version answered lately, with their labels: what is compared to the reference."""

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
from .segment_reader import Bounds, Follower, bounds, keys, read, served_rows, struct_columns
from .settings import MonitoredModel

__all__ = ["Quality", "Window"]

SAMPLE_ROWS = 50_000
"""Most rows kept in memory. Beyond, a share of all rows is kept, chosen by a hash of their keys."""

_EARLY = pd.Timedelta(hours=1)
_ALL = 2.0**64


@dataclass(frozen=True)
class Quality:
    """How good the predictions were, on the labelled rows of a window."""

    metric: str
    value: float
    rows: int


class Window:
    """The rows of one version whose event time is within `model.window` of the newest events captured.

    The newest is the `model.min_rows`-th newest event: a few rows which came without an event time, and so count as
    happening when they were received, cannot move the window away from the traffic (a replay, a backfill, a probe).

    `update` reads only what is new. At most `limit` rows are kept: beyond, a row stays when the hash of its key is
    below a bound which is halved as needed, so that every time of the window is represented by the same share of its
    rows, and the label of a row is kept exactly when the row is.

    Args:
        model: what is watched.
        version: the version whose rows count.
        limit: most rows to keep.
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
        self._capture = Follower(self.model.capture, CAPTURE)
        self._labels = Follower(self.model.capture, LABELS)
        self._label_of: dict[int, float] = {}
        self._label_time: dict[int, pd.Timestamp] = {}

    @property
    def newest(self) -> datetime | None:
        """Time which the window ends at, or None before there were `model.min_rows` events."""
        return self._latest[-1] if len(self._latest) == self.model.min_rows else None

    def update(self) -> bool:
        """Take in what is new; return whether the window changed."""
        changed = self._take_rows()
        changed = self._take_labels() or changed
        if self._share < 1.0 and self.sampled < self._limit // 4:
            # The traffic of the window became so thin that more of it can be kept: read it again.
            self._restart()
            self._take_rows()
            self._take_labels()
        return changed

    @property
    def sampled(self) -> int:
        """Rows kept in memory."""
        return 0 if self._frame is None else len(self._frame)

    @property
    def rows(self) -> int:
        """Rows of the window; estimated once only a share of them is kept."""
        return round(self.sampled / self._share)

    @property
    def labelled(self) -> int:
        """Rows of the window which have a label; estimated likewise."""
        return round(int(np.sum(~np.isnan(self._labels_of_rows()))) / self._share)

    @property
    def oldest(self) -> datetime | None:
        """Time of the window's first event."""
        if self._frame is None or self._frame.empty:
            return None
        return self._frame["_event_time"].min().to_pydatetime()

    def features(self) -> pd.DataFrame:
        """Return the kept rows' features, without those of which the capture holds no values."""
        if self._frame is None:
            return pd.DataFrame()
        own = ["_key", "_event_time", "_score", "_omitted"]
        return self._frame.drop(columns=[*own, *(name for name in self.omitted if name in self._frame.columns)])

    @property
    def omitted(self) -> frozenset[str]:
        """Features which were left out of the capture, or hashed, for any row of the window."""
        if self._frame is None:
            return frozenset()
        present: list[int] = self._frame["_omitted"].unique().tolist()
        return frozenset[str]().union(*(self._omissions[index] for index in present))

    def quality(self, least: int) -> Quality | None:
        """Return the area under the ROC curve (scikit-learn), from `least` labelled rows of both classes on."""
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
        """Return the label of each kept row, NaN where none came."""
        rows: list[int] = [] if self._frame is None else self._frame["_key"].tolist()
        return np.array([self._label_of.get(key, np.nan) for key in rows], dtype="float64")

    def _take_rows(self) -> bool:
        frames: list[pd.DataFrame] = []
        moved = False
        # The newest first: what is too old is then known by its footer alone.
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
            # In the order of writing, so that the last label of a row wins.
            for index in np.flatnonzero(kept):
                key = int(found[index])
                self._label_of[key] = labels[index]
                self._label_time[key] = times.iloc[index]
            changed = True
        if changed and len(self._label_of) > 2 * self.sampled + 20_000:
            self._forget_labels()
        return changed

    def _forget_labels(self) -> None:
        """Drop labels whose rows are not in the window; one which is just in may be ahead of its row's segment."""
        newest = max(self._label_time.values())
        rows: set[Any] = set() if self._frame is None else set(self._frame["_key"].tolist())
        gone = [key for key, time in self._label_time.items() if key not in rows and newest - time > _EARLY]
        for key in gone:
            del self._label_of[key], self._label_time[key]
