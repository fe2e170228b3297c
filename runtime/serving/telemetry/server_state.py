"""How the server is: told to its siblings, to Prometheus, to probes and to people."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import isfinite
from typing import Any, Literal, cast

from ..inference.batch import COMPILED
from ..inference.batcher import Batcher
from ..page import Recent, merged
from ..settings import ServingSettings
from ..versions.alias_watcher import AliasWatcher
from ..versions.model import ServedModel
from ..versions.shadow import Shadow
from .metrics import Notice, ServedVersion
from .status_schema import ServingState, ShadowState, Status
from .traffic import Traffic
from .worker_status import Board

__all__ = ["ServerState"]


class ServerState:
    """What one worker knows of itself and of its siblings."""

    def __init__(
        self,
        settings: ServingSettings,
        board: Board,
        watcher: AliasWatcher,
        batcher: Batcher,
        traffic: Traffic,
        recent: Recent,
        shadow: Shadow | None,
    ) -> None:
        self._settings = settings
        self._board = board
        self._watcher = watcher
        self._batcher = batcher
        self._traffic = traffic
        self._recent = recent
        self._shadow = shadow
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether predictions are answered and will be for a while."""
        return self._watcher.current is not None and not self.draining

    def notice(self) -> Notice:
        """Return what this worker says of itself."""
        watcher, shadow = self._watcher, self._shadow
        current = watcher.current
        shadowing = shadow.alias_watcher.current if shadow else None
        self._traffic.swaps = dict(watcher.counts)
        return {
            "index": self._board.index,
            "pid": os.getpid(),
            "traffic": self._traffic.to_json(),
            "recent": self._recent.to_json(),
            "requests": sum(self._traffic.requests.values()),
            "served": _served(current) if current is not None else None,
            "failed": watcher.failure.info.version if watcher.failure else None,
            "missing": watcher.missing,
            "reachable": watcher.reachable if self._settings.registry else None,
            "shadow": shadowing.info.version if shadowing else None,
            "waiting_rows": self._batcher.waiting_rows,
            "swaps": list(watcher.swaps),
        }

    def notices(self) -> list[Notice]:
        """Return what each worker says of itself, this one first."""
        return [self.notice(), *(cast("Notice", notice) for notice in self._board.others())]

    def say(self) -> None:
        """Tell the siblings."""
        if self._board.shared:
            self._board.say(cast("dict[str, Any]", self.notice()))

    def error(self) -> str | None:
        """Return what is wrong, one sentence, or None."""
        watcher, settings = self._watcher, self._settings
        if watcher.failure is not None:
            return f"version {watcher.failure.info.version} cannot serve: {watcher.failure.error}"
        if watcher.trouble:
            return watcher.trouble
        if watcher.missing:
            if settings.path is not None:
                return f"{settings.path} holds no MLmodel file"
            if settings.version is not None:
                return f"the registry has no version {settings.version} of {settings.model}"
            return f"the registry has no alias {settings.alias} of {settings.model}"
        # A model in a process of its own may be gone for a while.
        trouble: str | None = getattr(watcher.current.engine, "trouble", None) if watcher.current else None
        return trouble

    @property
    def registry(self) -> Literal["reachable", "unreachable", "unknown", "none"]:
        """How the registry was found last time."""
        if self._settings.registry is None:
            return "none"
        if self._watcher.reachable is None:
            return "unknown"
        return "reachable" if self._watcher.reachable else "unreachable"

    def readiness(self) -> dict[str, Any]:
        """Return the document at `/readyz`."""
        settings, current = self._settings, self._watcher.current
        state: dict[str, Any] = {
            "ready": self.ready,
            "model": settings.model,
            "alias": settings.alias if settings.version is None and settings.path is None else None,
            "registry": self.registry,
        }
        if current is not None:
            tags = current.info.tags
            state |= {
                "version": current.info.version,
                "run_id": current.info.run_id,
                "engine": current.engine.name,
                "engine_note": current.engine_note,
                "loaded_at": current.loaded_at.isoformat(timespec="milliseconds"),
                "lake_repository": tags.get("tidemill.lake.repository"),
                "lake_commit": tags.get("tidemill.lake.commit"),
                "git_commit": tags.get("tidemill.git.commit"),
            }
        if self._shadow is not None:
            shadowing = self._shadow.alias_watcher.current
            state["shadow"] = shadowing.info.version if shadowing else None
        if self._board.shared:
            state["workers"] = [
                {
                    "index": notice["index"],
                    "pid": notice["pid"],
                    "version": notice["served"]["version"] if notice["served"] else None,
                }
                for notice in sorted(self.notices(), key=lambda notice: notice["index"])
            ]
        if self.draining:
            state["error"] = "the server is ending"
        elif (error := self.error()) is not None:
            state["error"] = error
        return state

    def status(self) -> Status:
        """Return the document at `/status`."""
        notices = self.notices()
        ended = self._board.ended()
        traffic = Traffic.summed([notice["traffic"] for notice in notices] + ([ended] if ended else []))
        settings, current = self._settings, self._watcher.current
        return {
            "model": settings.model,
            "alias": settings.alias if settings.version is None and settings.path is None else None,
            "ready": self.ready,
            "registry": self.registry,
            "error": self.error(),
            "serving": _serving(current) if current is not None else None,
            "shadow": self._shadowing(traffic),
            "capture": {"written": traffic.captured, "dropped": traffic.dropped} if settings.capture else None,
            "workers": [
                {
                    "pid": notice["pid"],
                    "version": notice["served"]["version"] if notice["served"] else None,
                    "engine": notice["served"]["engine"] if notice["served"] else None,
                    "ready": notice["served"] is not None,
                    "requests": notice["requests"],
                }
                for notice in sorted(notices, key=lambda notice: notice["index"])
            ],
            "swaps": list(self._watcher.swaps),
            "rates": merged([notice["recent"] for notice in notices]),
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
        "output": model.output,
        "lineage": {
            "git_commit": tags.get("tidemill.git.commit"),
            "lake_repository": tags.get("tidemill.lake.repository"),
            "lake_commit": tags.get("tidemill.lake.commit"),
        },
        "metrics": {name: value if isfinite(value) else None for name, value in model.metrics.items()},
        "columns": [
            {"name": column.name, "kind": column.kind, "required": column.required} for column in _columns(model)
        ],
        "example": list(model.example),
    }


def _columns(model: ServedModel) -> Sequence[Any]:
    return model.contract.columns
