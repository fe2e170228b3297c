"""The state of the server, for other workers, Prometheus, probes and the status page."""

from __future__ import annotations

import os
from math import isfinite
from operator import itemgetter
from typing import Any, Literal

from ..inference.batch import COMPILED
from ..inference.batcher import Batcher
from ..settings import ServingSettings
from ..versions.alias_watcher import AliasWatcher
from ..versions.model import ServedModel
from ..versions.shadow import Shadow
from .recent import Recent, merge_rates
from .status_schema import ServingState, ShadowState, Status
from .traffic import Traffic
from .worker_status import ServedVersion, WorkerStatus, WorkerStatuses


class ServerState:
    """The state of one worker, and what it knows about the other workers."""

    def __init__(
        self,
        settings: ServingSettings,
        statuses: WorkerStatuses,
        alias_watcher: AliasWatcher,
        batcher: Batcher,
        traffic: Traffic,
        recent: Recent,
        shadow: Shadow | None,
    ) -> None:
        self._settings = settings
        self._statuses = statuses
        self._alias_watcher = alias_watcher
        self._batcher = batcher
        self._traffic = traffic
        self._recent = recent
        self._shadow = shadow
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether the worker answers predictions and is not about to stop."""
        return self._alias_watcher.current is not None and not self.draining

    @property
    def degraded(self) -> bool:
        """Whether the worker answers predictions but something is wrong; `error` says what."""
        return self.ready and self.error() is not None

    def worker_status(self) -> WorkerStatus:
        """Return the status of this worker."""
        watcher, shadow = self._alias_watcher, self._shadow
        current = watcher.current
        shadowing = shadow.alias_watcher.current if shadow else None
        self._traffic.swaps = dict(watcher.counts)
        return {
            "index": self._statuses.index,
            "pid": os.getpid(),
            "traffic": self._traffic.to_json(),
            "recent": self._recent.to_json(),
            "requests": sum(self._traffic.requests.values()),
            "served": _served(current) if current is not None else None,
            "failed": watcher.failure.info.version if watcher.failure else None,
            "missing": watcher.missing,
            "lost": watcher.lost,
            "reachable": watcher.reachable if self._settings.registry else None,
            "shadow": shadowing.info.version if shadowing else None,
            "waiting_rows": self._batcher.waiting_rows,
            "swaps": list(watcher.swaps),
        }

    def worker_statuses(self) -> list[WorkerStatus]:
        """Return the status of each worker, this one first."""
        return [self.worker_status(), *self._statuses.others()]

    def publish(self) -> None:
        """Publish the status of this worker to the others."""
        if self._statuses.shared:
            self._statuses.publish(self.worker_status())

    def error(self) -> str | None:
        """Return one sentence about what is wrong, or None."""
        watcher, settings = self._alias_watcher, self._settings
        if watcher.failure is not None:
            what = str(settings.path) if settings.path is not None else f"version {watcher.failure.info.version}"
            return f"{what} cannot serve: {watcher.failure.error}"
        if watcher.trouble:
            return watcher.trouble
        if watcher.missing:
            if settings.path is not None:
                return f"{settings.path} holds no MLmodel file"
            what = f"alias {settings.alias}" if settings.version is None else f"version {settings.version}"
            text = f"the registry has no {what} of {settings.model}"
            if watcher.current is None:
                return text
            serving = f"version {watcher.current.info.version}"
            hint = "configure another version" if settings.version else "set the alias in MLflow"
            if watcher.deleted:
                return f"{text}, and {serving}, which still serves, was deleted from it; {hint}"
            return f"{text}; {serving} still serves; {hint}"
        # The process of an isolated model may be restarting.
        trouble: str | None = getattr(watcher.current.engine, "trouble", None) if watcher.current else None
        return trouble

    @property
    def registry(self) -> Literal["reachable", "unreachable", "unknown", "none"]:
        """Whether the registry answered the last request."""
        if self._settings.registry is None:
            return "none"
        if self._alias_watcher.reachable is None:
            return "unknown"
        return "reachable" if self._alias_watcher.reachable else "unreachable"

    @property
    def _alias(self) -> str | None:
        settings = self._settings
        return settings.alias if settings.version is None and settings.path is None else None

    def readiness(self) -> dict[str, Any]:
        """Return the document at `/readyz`."""
        current = self._alias_watcher.current
        state: dict[str, Any] = {
            "ready": self.ready,
            "degraded": self.degraded,
            "model": self._settings.model,
            "alias": self._alias,
            "registry": self.registry,
            "trust": list(self._settings.trust),
            "alias_missing": self._alias_watcher.lost,
            "awaits_first_version": self._alias_watcher.missing and not self._alias_watcher.lost,
            "gives_up": self._alias_watcher.hopeless,
        }
        if current is not None:
            tags = current.info.tags
            state |= {
                "version": current.info.version,
                "run_id": current.info.run_id,
                "engine": current.engine.name,
                "engine_note": current.engine_note,
                "merges_requests": current.engine.mergeable,
                "merging_note": current.merging_note,
                "loaded_at": current.loaded_at.isoformat(timespec="milliseconds"),
                "lake_repository": tags.get("tidemill.lake.repository"),
                "lake_commit": tags.get("tidemill.lake.commit"),
                "git_commit": tags.get("tidemill.git.commit"),
            }
        if self._shadow is not None:
            shadowing = self._shadow.alias_watcher.current
            state["shadow"] = shadowing.info.version if shadowing else None
        if self._statuses.shared:
            state["workers"] = [
                {
                    "index": status["index"],
                    "pid": status["pid"],
                    "version": status["served"]["version"] if status["served"] else None,
                }
                for status in sorted(self.worker_statuses(), key=itemgetter("index"))
            ]
        if self.draining:
            state["error"] = "the server is shutting down"
        elif (error := self.error()) is not None:
            state["error"] = error
        return state

    def status(self) -> Status:
        """Return the document at `/status`."""
        statuses = self.worker_statuses()
        ended = self._statuses.ended_traffic()
        traffic = Traffic.summed([status["traffic"] for status in statuses] + ([ended] if ended else []))
        settings, current = self._settings, self._alias_watcher.current
        return {
            "model": settings.model,
            "alias": self._alias,
            "ready": self.ready,
            "degraded": self.degraded,
            "registry": self.registry,
            "error": self.error(),
            "trust": list(settings.trust),
            "serving": _serving(current) if current is not None else None,
            "shadow": self._shadowing(traffic),
            "capture": {"written": traffic.captured, "dropped": traffic.dropped} if settings.capture else None,
            "workers": [
                {
                    "pid": status["pid"],
                    "version": status["served"]["version"] if status["served"] else None,
                    "engine": status["served"]["engine"] if status["served"] else None,
                    "ready": status["served"] is not None,
                    "requests": status["requests"],
                }
                for status in sorted(statuses, key=itemgetter("index"))
            ],
            "swaps": list(self._alias_watcher.swaps),
            "rates": merge_rates([status["recent"] for status in statuses]),
        }

    def _shadowing(self, traffic: Traffic) -> ShadowState | None:
        shadow = self._shadow
        if shadow is None:
            return None
        current = shadow.alias_watcher.current
        compared = sum(traffic.shadow_difference.counts)
        share = traffic.shadow_disagreed / traffic.shadow_rows if traffic.shadow_rows else None
        return {
            "alias": str(self._settings.shadow),
            "version": current.info.version if current else None,
            "rows": traffic.shadow_rows,
            "disagreement": traffic.shadow_difference.total / compared if compared else share,
            "disagreement_is": "mean absolute difference" if compared else "share of rows with another answer",
            "dropped": traffic.shadow_dropped,
        }


def _served(model: ServedModel) -> ServedVersion:
    tags = model.info.tags
    return {
        "version": model.info.version,
        "alias": model.info.alias,
        "engine": model.engine.name,
        "lake_commit": tags.get("tidemill.lake.commit", ""),
        "git_commit": tags.get("tidemill.git.commit", ""),
    }


def _serving(model: ServedModel) -> ServingState:
    tags = model.info.tags
    return {
        "version": model.info.version,
        "run_id": model.info.run_id,
        "loaded_at": model.loaded_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "engine": model.engine.name,
        "compiled": model.engine.name in COMPILED,
        "engine_note": model.engine_note,
        "merges_requests": model.engine.mergeable,
        "merging_note": model.merging_note,
        "output": model.output,
        "lineage": {
            "git_commit": tags.get("tidemill.git.commit"),
            "lake_repository": tags.get("tidemill.lake.repository"),
            "lake_commit": tags.get("tidemill.lake.commit"),
        },
        "metrics": {name: value if isfinite(value) else None for name, value in model.metrics.items()},
        "columns": [
            {"name": column.name, "kind": column.kind, "required": column.required} for column in model.contract.columns
        ],
        "example": list(model.example),
    }
