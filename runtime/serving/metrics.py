"""The model server's metrics, in a registry of their own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from tidemill.runtime.serving.follower import Follower

__all__ = ["ServingMetrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


class ServingMetrics:
    """What `/metrics` shows of the server of `model`."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        of = self.registry
        self._requests = Counter("tidemill_requests", "Answered requests.", ["model", "version", "code"], registry=of)
        self._seconds = Histogram(
            "tidemill_request_seconds", "Time from request to answer.", ["model"], buckets=_SECONDS, registry=of
        )
        self._rows = Histogram(
            "tidemill_batch_rows", "Rows of an answered request.", ["model"], buckets=_ROWS, registry=of
        )
        self._info = Gauge(
            "tidemill_model_info",
            "1 for the version which serves.",
            ["model", "version", "alias", "lake_commit", "git_commit"],
            registry=of,
        )
        self._failed = Gauge(
            "tidemill_model_load_failed",
            "1 for a version which should serve and cannot.",
            ["model", "version"],
            registry=of,
        )
        missing = Gauge(
            "tidemill_champion_missing", "1 when the registry answers and has no such alias.", ["model"], registry=of
        )
        reachable = Gauge(
            "tidemill_registry_reachable", "1 when the registry answered last time.", ["model"], registry=of
        )
        dropped = Counter("tidemill_capture_dropped", "Rows answered and not captured.", ["model"], registry=of)
        captured = Counter("tidemill_captured_rows", "Rows captured.", ["model"], registry=of)
        labels = Counter("tidemill_labels", "Labels kept.", ["model"], registry=of)
        # Made at once: a series which appears with its first event hides that event from `increase`.
        self.dropped, self.captured, self.labels = dropped.labels(model), captured.labels(model), labels.labels(model)
        self._missing, self._reachable = missing.labels(model), reachable.labels(model)
        self._seconds.labels(model)
        self._rows.labels(model)

    def answered(self, *, version: str, code: int, seconds: float, rows: int) -> None:
        """Count one request to `/invocations`; `version` is empty where none answered, `rows` 0 where none was read."""
        self._requests.labels(self._model, version, str(code)).inc()
        self._seconds.labels(self._model).observe(seconds)
        if rows:
            self._rows.labels(self._model).observe(rows)

    def followed(self, follower: Follower) -> None:
        """Show what the follower found."""
        self._missing.set(follower.missing)
        self._reachable.set(bool(follower.reachable))
        self._info.clear()
        if follower.current is not None:
            info = follower.current.info
            tags = info.tags
            self._info.labels(
                info.model,
                info.version,
                info.alias,
                tags.get("tidemill.lake.commit", ""),
                tags.get("tidemill.git.commit", ""),
            ).set(1)
        self._failed.clear()
        if follower.failure is not None:
            self._failed.labels(self._model, follower.failure.info.version).set(1)
