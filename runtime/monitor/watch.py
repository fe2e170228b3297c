"""Monitors each model: window, drift, quality, labelled days and unvalidated commits."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from .. import registry
from ..common.errors import TidemillError
from ..common.target import LabelProblem, Target
from ..data import Lake, UnvalidatedCommit, unvalidated
from ..drift import DriftResult, RelationChange, score
from .capture_health import CaptureHealth
from .days import Days
from .publishing import Publisher
from .references import Reference, References
from .settings import MonitoredModel, MonitorSettings
from .window import Quality, Window, WindowLabels

_log = logging.getLogger(__name__)
_MAX_FILES = 20
_REASONS: dict[LabelProblem, str] = {
    "not_a_number": "not numbers",
    "not_finite": "not finite",
    "unknown_class": "of unknown classes",
    "disputed": "with different values from two API keys",
}


@dataclass(frozen=True)
class Snapshot:
    """The state of a model after a check; `drift`, `quality` and `relation` are None without enough rows.

    Attributes:
        not_compared: features that the capture omits or hashes.
        relation: the relation between predictions and labels, compared with that of held-out rows.
        relation_known: whether the version was logged with held-out rows.
        dropped: reason -> rows of the window whose label is not used.
        outside: rows of the window with a label outside the range at training.
        predictions, labels: name of the API key -> rows of the window whose request, or whose label, it sent.
        skipped: labels of whole requests and of single outputs, which are not compared with predictions.
    """

    version: str | None = None
    rows: int = 0
    labelled: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None
    drift: DriftResult | None = None
    quality: Quality | None = None
    not_compared: tuple[str, ...] = ()
    relation: RelationChange | None = None
    relation_known: bool = False
    dropped: Mapping[LabelProblem, int] = field(default_factory=dict["LabelProblem", int])
    outside: int = 0
    predictions: Mapping[str, int] = field(default_factory=dict[str, int])
    labels: Mapping[str, int] = field(default_factory=dict[str, int])
    skipped: int = 0


class Watch:
    """Checks one model repeatedly.

    A failed check is counted in `errors`, and repeated in the next round. While the registry does not answer, the last
    known version is assumed to serve, and its window is still scored. While the lake does not answer, labelled windows
    wait. So an unavailable server neither raises nor ends an alert.

    Args:
        model: the monitored model.
        references: downloads the references.
        lake: the lake.
        state: folder for the publishing state.
    """

    def __init__(self, model: MonitoredModel, references: References, lake: Lake, state: Path) -> None:
        self.model = model
        self.publisher = Publisher(model, state / "publishing" / model.name)
        self.health = CaptureHealth(model.capture, model.retention_days)
        self.days = Days(model, self.publisher.state.days, self.health)
        self.snapshot = Snapshot()
        self.errors: Counter[str] = Counter()
        self.failing: dict[str, str] = {}
        self.unvalidated: list[UnvalidatedCommit] | None = None
        self._references = references
        self._lake = lake
        self._serving: registry.ModelVersion | None = None
        self._reference: Reference | None = None
        self._window: Window | None = None

    def check(self) -> None:
        """Read new rows, score them, and publish due days."""
        self._try("capture", self.health.check)
        self._try("registry", self._follow_alias)
        self._try("window", self._score)
        self._try("publish", self._publish)
        self._try("lake", self._find_unvalidated)

    def status(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        now, state, waiting = self.snapshot, self.publisher.state, self.publisher.waiting
        return {
            "name": self.model.name,
            "alias": self.model.alias,
            "data": self.model.data,
            "version": now.version,
            "window": {
                "rows": now.rows,
                "from": now.oldest.isoformat() if now.oldest else None,
                "to": now.newest.isoformat() if now.newest else None,
                "labelled": now.labelled,
                "label_coverage": now.labelled / now.rows if now.rows else 0.0,
            },
            "not_compared": list(now.not_compared),
            "drift": now.drift.to_dict() if now.drift else None,
            "quality": {"metric": now.quality.metric, "value": now.quality.value, "rows": now.quality.rows}
            if now.quality
            else None,
            "relation": {
                "known": now.relation_known,
                "changed": now.relation.changed,
                "distance": now.relation.distance,
                "p_value": now.relation.p_value,
                "rows": now.relation.rows,
            }
            if now.relation
            else {"known": now.relation_known},
            "labels": {
                "dropped": dict(now.dropped),
                "outside_range": now.outside,
                "keys": dict(now.labels),
                "skipped": now.skipped,
            },
            "predictions": {"keys": dict(now.predictions)},
            "waiting": {"above_share": dict(waiting.above_share), "not_used": dict(waiting.not_used)},
            "notes": self.notes(),
            "days": [
                {"day": day.day.isoformat(), "rows": day.rows, "labelled": day.labelled, "coverage": day.coverage}
                for day in sorted(self.days.open.copy().values(), key=lambda day: day.day)
            ],
            "published": [window.model_dump(mode="json") for window in reversed(state.published[-50:])],
            "pending": state.pending.model_dump(mode="json") if state.pending else None,
            "refused": [window.model_dump(mode="json") for window in state.refused],
            "unvalidated_commits": None if self.unvalidated is None else len(self.unvalidated),
            "unvalidated": [
                {**commit.to_json(), "files": [*commit.files[:_MAX_FILES]], "number_of_files": len(commit.files)}
                for commit in self.unvalidated or ()
            ],
            "failing": dict(self.failing),
        }

    def notes(self) -> list[str]:
        """Return a sentence for each problem of the capture and its labels."""
        now = self.snapshot
        found = self.health.notes()
        if now.dropped:
            found.append(f"labels of the window are not used: {_reasons(now.dropped)}")
        if now.skipped:
            found.append(
                f"{now.skipped} labels of whole requests or of single outputs (with `output`) are not compared with "
                "predictions"
            )
        if now.outside:
            found.append(f"{now.outside} labels of the window are outside the range at training")
        if now.relation is not None and now.relation.changed:
            found.append(
                "the relation between predictions and labels changed: concept drift or poisoned labels; "
                f"labels were sent by {_listed(now.labels)}"
            )
        waiting = self.publisher.waiting
        if waiting.above_share:
            found.append(
                "labelled rows wait: too few are left without the rows above watch.max_share_per_key "
                f"({_listed(waiting.above_share)})"
            )
        if waiting.not_used:
            found.append(
                "labelled rows wait: too few are left without the rows whose labels are not used: "
                f"{_reasons(waiting.not_used)}"
            )
        return found

    def _try(self, part: str, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:  # noqa: BLE001 - one failed check must not end the thread
            self.errors[part] += 1
            text = str(error) if isinstance(error, TidemillError) else f"{type(error).__name__}: {error}"
            if self.failing.get(part) != text:
                extra = {"model": self.model.name, "part": part, "error": text}
                _log.warning("a check failed", extra=extra, exc_info=not isinstance(error, TidemillError))
            self.failing[part] = text
        else:
            self.failing.pop(part, None)

    def _follow_alias(self) -> None:
        serving = self._references.serving(self.model.name, self.model.alias)
        if serving is None:
            self._serving = self._reference = self._window = None
            self.snapshot = Snapshot()
            return
        if serving != self._serving or self._window is None:
            if self._window is None or self._window.version != serving.version:
                self._window = Window(self.model, serving.version, health=self.health)
            if self._serving is None or self._serving.run_id != serving.run_id:
                self._reference = None
                self.snapshot = Snapshot(serving.version)
            self._serving = serving
        if self._reference is None:
            self._reference = self._references.load(serving)

    def _score(self) -> None:
        window, reference = self._window, self._reference
        if window is None or not (window.update() or reference is None or self.snapshot.drift is None):
            return
        enough = window.sampled >= self.model.min_rows
        omitted = window.omitted
        drift = None
        if enough and reference is not None:
            compared = [name for name in reference.features if name not in omitted]
            threshold = self.model.drift_threshold
            drift = score(reference.sample, window.features(), features=compared, threshold=threshold)
        target = self._target(window)
        labels = window.labels(target)
        quality = window.quality(self.model.min_rows, target)
        relation = self._relation(window, labels)
        self.snapshot = Snapshot(
            window.version,
            window.rows,
            window.labelled,
            window.oldest,
            window.newest,
            drift,
            quality,
            tuple(sorted(omitted)),
            relation,
            reference is not None and reference.relation is not None,
            labels.dropped,
            labels.outside,
            window.senders,
            labels.senders,
            window.labels_skipped,
        )

    def _target(self, window: Window) -> Target | None:
        return window.target(self._reference.target if self._reference is not None else None)

    def _relation(self, window: Window, labels: WindowLabels) -> RelationChange | None:
        known = window.settled(labels)
        predictions = window.predictions()
        relation = self._reference.relation if self._reference is not None else None
        if relation is None or predictions is None or known.sum() < self.model.min_rows:
            return None
        known &= np.isfinite(predictions.reshape(len(predictions), -1)).all(axis=1)
        if known.sum() < self.model.min_rows:
            return None
        return relation.compare(predictions[known], labels.values[known])

    def _publish(self) -> None:
        self.days.update()
        if dropped := self.days.drop_unlabelled():
            _log.info("dropped days without labels", extra={"model": self.model.name, "days": len(dropped)})
        self.publisher.target = self._target(self._window) if self._window is not None else None
        self.publisher.tick(self.days, self._lake)

    def _find_unvalidated(self) -> None:
        # Without a gate, no commit has a verdict.
        keys = self._lake.settings.verdict_keys
        self.unvalidated = unvalidated(self.model.data, lake=self._lake) if keys else None


def _reasons(rows: Mapping[LabelProblem, int]) -> str:
    return ", ".join(f"{count} {_REASONS[reason]}" for reason, count in sorted(rows.items()))


def _listed(rows: Mapping[str, int]) -> str:
    """Return `a 120, b 7`: the keys with most rows first."""
    return ", ".join(f"{name} {count}" for name, count in sorted(rows.items(), key=lambda item: (-item[1], item[0])))


class Monitor:
    """The thread that checks every model in turn.

    Args:
        settings: the models and the servers.
    """

    def __init__(self, settings: MonitorSettings) -> None:
        self._every = settings.interval_seconds
        self._lake = Lake(settings.lake)
        references = References(settings.registry, settings.state / "references")
        self.watches = [Watch(model, references, self._lake, settings.state) for model in settings.models]
        self._stop = threading.Event()
        # A check may wait for the gate for minutes, longer than a stop may take. It is safe to kill.
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop after the current check, or after five seconds."""
        self._stop.set()
        self._thread.join(5.0)
        self._lake.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            for watch in self.watches:
                watch.check()
            self._stop.wait(self._every)
