"""The watch over one model: its window, its drift, its quality, its labelled days."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import registry
from ..common.errors import TidemillError
from ..data import Lake
from ..drift import DriftResult, score
from .days import Days
from .publishing import Publisher
from .references import Reference, References
from .settings import MonitoredModel, MonitorSettings
from .window import Quality, Window

__all__ = ["Monitor", "Snapshot", "Watch"]

_log = logging.getLogger(__name__)
_MOST_COMMITS = 100


@dataclass(frozen=True)
class Snapshot:
    """What is known of a model after a look at it; `drift` and `quality` are None without enough rows.

    Features in `not_compared` are left out of the capture, or hashed.
    """

    version: str | None = None
    rows: int = 0
    labelled: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None
    drift: DriftResult | None = None
    quality: Quality | None = None
    not_compared: tuple[str, ...] = ()


class Watch:
    """Looks at one model again and again.

    What fails in one look is counted in `errors` and tried again in the next. While the registry does not answer, the
    version that served last is taken to serve on, and its window is scored on; while the lake does not answer, labelled
    windows wait. So an alert neither fires nor ends because a server is down.

    Args:
        model: what is watched.
        references: where references come from.
        lake: the lake.
        state: folder for what was published.
    """

    def __init__(self, model: MonitoredModel, references: References, lake: Lake, state: Path) -> None:
        self.model = model
        self.publisher = Publisher(model, state / "publishing" / model.name)
        self.days = Days(model, self.publisher.state.days)
        self.snapshot = Snapshot()
        self.errors: Counter[str] = Counter()
        self.failing: dict[str, str] = {}
        self.unvalidated: int | None = None
        self._references = references
        self._lake = lake
        self._serving: registry.ModelVersion | None = None
        self._reference: Reference | None = None
        self._window: Window | None = None

    def look(self) -> None:
        """Take in what is new, score it, publish what is due."""
        self._try("registry", self._follow_alias)
        self._try("window", self._score)
        self._try("publish", self._publish)
        self._try("lake", self._count_unvalidated)

    def status(self) -> dict[str, Any]:
        """Return what is known, as plain JSON values."""
        now, state = self.snapshot, self.publisher.state
        return {
            "name": self.model.name,
            "alias": self.model.alias,
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
            "days": [
                {"day": day.day.isoformat(), "rows": day.rows, "labelled": day.labelled, "coverage": day.coverage}
                for day in sorted(self.days.open.copy().values(), key=lambda day: day.day)
            ],
            "published": [window.model_dump(mode="json") for window in reversed(state.published[-50:])],
            "pending": state.pending.model_dump(mode="json") if state.pending else None,
            "refused": [window.model_dump(mode="json") for window in state.refused],
            "unvalidated_commits": self.unvalidated,
            "failing": dict(self.failing),
        }

    def _try(self, part: str, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:  # noqa: BLE001 - the watch goes on whatever one look ran into
            self.errors[part] += 1
            text = str(error) if isinstance(error, TidemillError) else f"{type(error).__name__}: {error}"
            if self.failing.get(part) != text:
                extra = {"model": self.model.name, "part": part, "error": text}
                _log.warning("a look failed", extra=extra, exc_info=not isinstance(error, TidemillError))
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
                self._window = Window(self.model, serving.version)
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
        quality = window.quality(self.model.min_rows)
        self.snapshot = Snapshot(
            window.version,
            window.rows,
            window.labelled,
            window.oldest,
            window.newest,
            drift,
            quality,
            tuple(sorted(omitted)),
        )

    def _publish(self) -> None:
        self.days.update()
        if forgotten := self.days.forget_unlabelled():
            _log.info("days without labels are forgotten", extra={"model": self.model.name, "days": len(forgotten)})
        self.publisher.tick(self.days, self._lake)

    def _count_unvalidated(self) -> None:
        repository, branch, _ = self.model.data.split("/", 2)
        newer = 0
        for commit in self._lake.log(repository, branch):
            if newer >= _MOST_COMMITS or self._lake.gated(repository, commit.id):
                break
            newer += 1
        self.unvalidated = newer


class Monitor:
    """The thread which looks at every model in turn.

    Args:
        settings: what to watch.
    """

    def __init__(self, settings: MonitorSettings) -> None:
        self._every = settings.interval_seconds
        self._lake = Lake(settings.lake)
        references = References(settings.registry, settings.state / "references")
        self.watches = [Watch(model, references, self._lake, settings.state) for model in settings.models]
        self._stop = threading.Event()
        # A look may wait minutes for a gate, longer than a stop may take; it may be killed anywhere.
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop after the look which is under way, or leave it after five seconds."""
        self._stop.set()
        self._thread.join(5.0)
        self._lake.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            for watch in self.watches:
                watch.look()
            self._stop.wait(self._every)
