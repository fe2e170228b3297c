"""The recent rows of the serving version with their labels, which are compared with the reference."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..capture import CAPTURE, KEY, LABELS, is_hashed, omitted_of
from ..common.target import LabelProblem, Target
from .capture_health import CaptureHealth
from .labels import UNKNOWN, LabelBook, problem_of
from .segment_reader import Bounds, SegmentReader, bounds, keys, read, served_rows, struct_columns
from .settings import MonitoredModel

SAMPLE_ROWS = 50_000
"""Maximum rows in memory. Beyond it, only a share of the rows is kept, chosen by a hash of their keys."""

_EARLY = timedelta(hours=1)
_ALL = 2.0**64
COVERAGE = 0.99
"""Share of labelled rows at which a window or a day is complete."""


_CLASSES = Target(classes=(0.0, 1.0))
"""The target of a binary classifier that was logged without a contract."""


@dataclass(frozen=True)
class WindowLabels:
    """The labels of the rows of a window.

    Attributes:
        values: the usable label of each row, else NaN.
        dropped: reason -> number of rows whose label is not used.
        outside: number of usable labels outside the range at training.
        senders: name of the API key -> number of usable labels.
    """

    values: NDArray[np.float64]
    dropped: Mapping[LabelProblem, int]
    outside: int
    senders: Mapping[str, int]


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
        health: notes segments that cannot be read.
    """

    def __init__(
        self, model: MonitoredModel, version: str, *, limit: int = SAMPLE_ROWS, health: CaptureHealth | None = None
    ) -> None:
        self._health = health
        self.model = model
        self.version = version
        self._limit = limit
        self._restart()

    def _restart(self) -> None:
        self._latest: list[datetime] = []
        self._share = 1.0
        self._is_binary = False
        self._frame: pd.DataFrame | None = None
        self._omissions: list[frozenset[str]] = []
        self._capture = SegmentReader(self.model.capture, CAPTURE, health=self._health)
        self._labels = SegmentReader(self.model.capture, LABELS, health=self._health)
        self._book = LabelBook()

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
        return round(sum(self._book.get(row) is not None for row in self._row_keys()) / self._share)

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
        own = ["_key", "_event_time", "_output", "_sender", "_omitted"]
        return self._frame.drop(columns=[*own, *(name for name in self.omitted if name in self._frame.columns)])

    @property
    def omitted(self) -> frozenset[str]:
        """Features that the capture omitted or hashed in any row of the window."""
        if self._frame is None:
            return frozenset()
        present: list[int] = self._frame["_omitted"].unique().tolist()
        return frozenset[str]().union(*(self._omissions[index] for index in present))

    @property
    def senders(self) -> Mapping[str, int]:
        """Name of the API key -> number of rows in memory that it sent."""
        if self._frame is None:
            return {}
        return Counter(sender or UNKNOWN for sender in self._frame["_sender"].tolist())

    def labels(self, target: Target | None = None) -> WindowLabels:
        """Return the labels of the rows in memory.

        Args:
            target: the contract of the labels; labels of other classes are dropped unless the model allows new ones.
        """
        values = np.full(self.sampled, np.nan)
        dropped: Counter[LabelProblem] = Counter()
        senders: Counter[str] = Counter()
        outside = 0
        for index, row in enumerate(self._row_keys()):
            label = self._book.get(row)
            if label is None:
                continue
            problem = problem_of(label, target, allow_new=self.model.allow_new_labels)
            if problem is not None:
                dropped[problem] += 1
                continue
            values[index] = label.value
            senders[label.sender or UNKNOWN] += 1
            outside += target is not None and target.is_outside(label.value)
        return WindowLabels(values, dropped, outside, senders)

    def predictions(self) -> NDArray[np.float64] | None:
        """Return the predictions of the rows in memory: one number for each, or one for each class; None for others.

        They are NaN for a row whose answer belongs to its request.
        """
        if self._frame is None:
            return None
        outputs = self._frame["_output"]
        try:
            if outputs.dtype == object:
                width = next((len(each) for each in outputs if each is not None), 0)
                values = [[np.nan] * width if each is None else list(each) for each in outputs]
                found = np.array(values, dtype="float64")
                # The probabilities of several targets are not compared.
                return found if found.ndim == 2 and width else None
            return outputs.to_numpy(dtype="float64")
        except (TypeError, ValueError):
            return None

    @property
    def labels_skipped(self) -> int:
        """Number of labels of whole requests and of single outputs, which are not compared with predictions."""
        return self._book.skipped

    def target(self, recorded: Target | None) -> Target | None:
        """Return the contract `recorded` at training, or that of a binary classifier that was logged without one."""
        if recorded is not None and recorded.known:
            return recorded
        return _CLASSES if self._is_binary else None

    def quality(self, least: int, target: Target | None = None) -> Quality | None:
        """Return the ROC AUC (scikit-learn) of a binary classifier.

        Return None with fewer than `least` labelled rows, or if only one class has labels.
        """
        scores, target = self.predictions(), self.target(target)
        classes = np.array((target.classes if target is not None else None) or (), dtype="float64")
        if scores is None or not self._is_binary or len(classes) != 2:
            return None
        labels = self.labels(target).values
        known = np.isin(labels, classes) & ~np.isnan(scores)
        positive = labels[known] == classes[1]
        if known.sum() < least or positive.all() or not positive.any():
            return None
        from sklearn.metrics import roc_auc_score

        return Quality("roc_auc", float(roc_auc_score(positive, scores[known])), int(known.sum()))

    def settled(self, labels: WindowLabels) -> NDArray[np.bool_]:
        """Return which labelled rows represent the window: all if nearly every row has a label, else those old enough.

        Labels of one class may arrive first; only after the label delay do the labels say how frequent each class is.
        """
        known = np.isfinite(labels.values)
        labelled = known.sum() + sum(labels.dropped.values())
        if self._frame is None or self.newest is None or labelled >= COVERAGE * self.sampled:
            return known
        last = pd.Timestamp(self.newest - timedelta(seconds=self.model.label_delay))
        return known & (self._frame["_event_time"] <= last).to_numpy()

    def _row_keys(self) -> list[int]:
        return [] if self._frame is None else self._frame["_key"].tolist()

    def _take_rows(self) -> bool:
        frames: list[pd.DataFrame] = []
        moved = False
        # Newest first: then the footers alone identify segments that are too old.
        for segment in reversed(self._capture.segments()):
            if self._is_known_to_miss(bounds(segment)):
                continue
            table = read(segment, health=self._health)
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
        self._is_binary = outputs.column_names == ["score"]
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
                _output=outputs.column(0).to_pandas(),
                _sender=pd.Series(table[KEY].to_pylist(), dtype=object),
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
        bound = _ALL * self._share
        for _, table in self._labels.tables():
            self._book.add(table, lambda row: row < bound)
            changed = True
        if changed and len(self._book) > 2 * self.sampled + 20_000:
            self._book.forget(set(self._row_keys()), _EARLY)
        return changed
