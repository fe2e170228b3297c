"""The relation between predictions and labels, on rows that the model was not fitted on.

The cause of a change is concept drift or poisoned labels; no statistic can tell the two apart. Classifiers are compared
by the calibration error in each band of the score: the share of rows with the predicted class (binary classifiers:
class 1) minus the mean score. So a window with other scores, but the same relation, does not differ. Models of numbers
are compared by their residuals.

    reference = Relation.of(held_out_scores, held_out_labels, classes=(0.0, 1.0))
    change = reference.compare(scores, labels)
    change.changed, change.distance, change.p_value
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from ..common.errors import ConfigError

ALPHA = 1e-4
"""Level of the test. A window is tested again each time it grows, so the level is far below 1 %."""

MIN_DISTANCE = 0.05
"""Minimum distance of a change: with many rows, the test also finds differences that do not matter."""

MIN_ROWS = 100
"""Minimum number of rows on each side."""

_Floats: TypeAlias = NDArray[np.float64]
_COUNT = 10
_EXPECTED = 5
_RESIDUALS = 1000
_SEED = 0


@dataclass(frozen=True)
class RelationChange:
    """The comparison of a window with the reference.

    Attributes:
        distance: for classes, the mean absolute difference of the error in the bands, weighted by the window's rows;
            for numbers, the Kolmogorov-Smirnov distance of the residuals. 0 to 1.
        p_value: probability of a difference as large as this if nothing had changed.
        rows: labelled rows of the window.
    """

    distance: float
    p_value: float
    rows: int

    @property
    def changed(self) -> bool:
        """Whether the relation changed by more than chance and by an amount that matters."""
        return self.p_value < ALPHA and self.distance >= MIN_DISTANCE


class _Band(NamedTuple):
    """A band: its rows, those with the predicted class, and the sums of (hit - score) and of its square."""

    rows: float = 0.0
    hits: float = 0.0
    errors: float = 0.0
    squares: float = 0.0

    def plus(self, other: _Band) -> _Band:
        """Return both bands as one."""
        return _Band(*(mine + more for mine, more in zip(self, other, strict=True)))

    @property
    def error(self) -> float:
        """The calibration error."""
        return self.errors / self.rows

    @property
    def deviations(self) -> float:
        """The sum of squared deviations from the calibration error."""
        return max(0.0, self.squares - self.errors**2 / self.rows)


@dataclass(frozen=True)
class Relation:
    """The relation between predictions and labels, on rows that the model was not fitted on.

    Attributes:
        kind: `classes` or `numbers`.
        edges: the bounds between the bands of the score.
        bands: the counts of each band of the score.
        residuals: true value minus prediction, sorted; at most 1,000.
        classes: the classes, in the order of the scores.
    """

    kind: Literal["classes", "numbers"]
    edges: tuple[float, ...] = ()
    bands: tuple[_Band, ...] = ()
    residuals: tuple[float, ...] = ()
    classes: tuple[float, ...] = ()

    @classmethod
    def of(cls, predictions: Any, labels: Any, *, classes: Sequence[float] | None = None) -> Relation | None:
        """Return the relation of `labels` to `predictions`, or None with fewer than MIN_ROWS usable rows.

        Args:
            predictions: one number for each row (a binary classifier: the probability of class 1), or one probability
                for each class.
            labels: the true values.
            classes: the classes of a classifier; None for a model of numbers.

        Raises:
            ConfigError: the numbers of predictions and labels differ, or the predictions have another form.
        """
        given = np.asarray(predictions, dtype="float64")
        known = np.asarray(labels, dtype="float64")
        if len(given) != len(known):
            raise ConfigError("must have one prediction for each true value", field="held_out", value=len(given))
        if classes is None:
            if given.ndim != 1:
                raise ConfigError("must have one number for each row: the model has no classes", field="held_out")
            residuals = _finite(known - given)
            if len(residuals) < MIN_ROWS:
                return None
            if len(residuals) > _RESIDUALS:
                residuals = np.random.default_rng(_SEED).choice(residuals, _RESIDUALS, replace=False)
            return cls("numbers", residuals=tuple(np.sort(residuals).tolist()))
        ordered = tuple(float(each) for each in classes)
        if (given.ndim == 1 and len(ordered) != 2) or (given.ndim == 2 and given.shape[1] != len(ordered)):
            raise ConfigError(f"must have {len(ordered)} probabilities for each row: one per class", field="held_out")
        scores, hits = _scores_and_hits(given, known, ordered)
        if len(scores) < MIN_ROWS:
            return None
        edges = np.unique(np.quantile(scores, np.arange(1, _COUNT) / _COUNT))
        return cls("classes", tuple(edges.tolist()), _bands(scores, hits, edges), classes=ordered)

    def compare(self, predictions: Any, labels: Any) -> RelationChange | None:
        """Compare a window with this reference; None with fewer than MIN_ROWS usable rows.

        Labels of other classes are left out.

        Args:
            predictions: as in `of`.
            labels: the true values.
        """
        given, known = np.asarray(predictions, dtype="float64"), np.asarray(labels, dtype="float64")
        if self.kind == "numbers":
            residuals = _finite(known - given) if given.ndim == 1 else np.empty(0)
            return self._compare_numbers(residuals) if len(residuals) >= MIN_ROWS else None
        if given.ndim == 2 and given.shape[1] != len(self.classes):
            return None
        scores, hits = _scores_and_hits(given, known, self.classes)
        return self._compare_classes(scores, hits) if len(scores) >= MIN_ROWS else None

    def _compare_numbers(self, residuals: _Floats) -> RelationChange:
        from scipy.stats import ks_2samp

        found = cast("Any", ks_2samp(np.array(self.residuals), residuals, method="asymp"))
        return RelationChange(float(found.statistic), float(found.pvalue), len(residuals))

    def _compare_classes(self, scores: _Floats, hits: NDArray[np.bool_]) -> RelationChange:
        from scipy.stats import chi2

        pairs = _merged(self.bands, _bands(scores, hits, np.array(self.edges)))
        squares = distance = 0.0
        for before, now in pairs:
            difference = now.error - before.error
            deviations = before.deviations + now.deviations
            variance = deviations / (before.rows + now.rows) * (1 / before.rows + 1 / now.rows)
            if difference:
                squares += difference**2 / variance if variance > 0 else np.inf
            distance += now.rows * abs(difference) / len(scores)
        return RelationChange(distance, float(chi2.sf(squares, len(pairs))) if pairs else 1.0, len(scores))

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        names = ("edges", "bands", "residuals", "classes")
        return {"kind": self.kind, **{name: list(getattr(self, name)) for name in names}}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Relation:
        """Read it from a JSON object.

        Raises:
            KeyError, TypeError, ValueError: the object is not a relation.
        """
        if document["kind"] not in ("classes", "numbers"):
            raise ValueError(f"unknown kind {document['kind']!r}")
        edges, residuals, classes = (tuple(map(float, document[name])) for name in ("edges", "residuals", "classes"))
        bands = tuple(_Band(*map(float, band)) for band in document["bands"])
        if document["kind"] == "classes" and (len(edges) + 1 != len(bands) or len(classes) < 2):
            raise ValueError("its bands do not fit its edges, or it has no classes")
        return cls(document["kind"], edges, bands, residuals, classes)


def _finite(values: _Floats) -> _Floats:
    return values[np.isfinite(values)]


def _scores_and_hits(given: _Floats, labels: _Floats, classes: Sequence[float]) -> tuple[_Floats, NDArray[np.bool_]]:
    """Return the score of each usable row, and whether its label is the class that the score is for."""
    if given.ndim == 1 or given.shape[1] == 2:
        scores = given if given.ndim == 1 else given[:, 1]
        predicted = np.full(len(scores), classes[1])
    else:
        scores = given.max(axis=1) if len(given) else np.empty(0)
        # A row that is not finite has no best class; it is left out below.
        predicted = np.array(classes)[np.argmax(np.nan_to_num(given, nan=-np.inf), axis=1)]
    usable = np.isfinite(scores) & np.isin(labels, classes)
    return scores[usable], labels[usable] == predicted[usable]


def _bands(scores: _Floats, hits: NDArray[np.bool_], edges: _Floats) -> tuple[_Band, ...]:
    """Return the bands between `edges`."""
    band = np.searchsorted(edges, scores, side="right")
    errors = hits - scores
    sums = [np.bincount(band, values, len(edges) + 1) for values in (np.ones_like(scores), hits, errors, errors**2)]
    return tuple(_Band(*values) for values in np.column_stack(sums).tolist())


def _merged(before: Sequence[_Band], now: Sequence[_Band]) -> list[tuple[_Band, _Band]]:
    """Merge neighbouring bands until each has enough hits and misses on both sides for the chi-square test."""
    merged: list[tuple[_Band, _Band]] = []
    left = right = _Band()
    for one, other in zip(before, now, strict=True):
        left, right = left.plus(one), right.plus(other)
        if _enough(left, right):
            merged.append((left, right))
            left = right = _Band()
    if merged:
        last = merged.pop()
        left, right = last[0].plus(left), last[1].plus(right)
    return [*merged, (left, right)] if left.rows and right.rows else merged


def _enough(before: _Band, now: _Band) -> bool:
    total = before.rows + now.rows
    share = (before.hits + now.hits) / total if total else 0.0
    return min(before.rows, now.rows) * min(share, 1 - share) >= _EXPECTED
