"""The HTTP interface of the monitor service: `GET /status`, health and metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, get_args

from fastapi import Depends, FastAPI, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..common.service import add_metrics, bearer, token_of
from ..common.target import LabelProblem
from .capture_health import KINDS
from .settings import MonitorSettings
from .watch import Monitor, Watch


class _MonitorMetrics(Collector):
    """Exports the current state; a version that no longer serves has no series."""

    def __init__(self, watches: Sequence[Watch]) -> None:
        self._watches = watches

    def collect(self) -> Iterator[Metric]:
        base = ["model", "version"]
        tests = [*base, "feature", "test"]
        drift = GaugeMetricFamily("tidemill_feature_drift", "Distance from the reference.", labels=tests)
        drifted = GaugeMetricFamily(
            "tidemill_feature_drifted", "1 if the feature drifted, else 0.", labels=[*base, "feature"]
        )
        share = GaugeMetricFamily("tidemill_drift_share", "Share of drifted features, 0 to 1.", labels=base)
        rows = GaugeMetricFamily("tidemill_window_rows", "Rows in the window of the serving version.", labels=base)
        quality = GaugeMetricFamily(
            "tidemill_model_quality", "Quality of the predictions in the window.", labels=[*base, "metric", "kind"]
        )
        for watch in self._watches:
            now, model = watch.snapshot, watch.model.name
            if now.version is None:
                continue
            rows.add_metric([model, now.version], now.rows)
            if now.drift is not None:
                share.add_metric([model, now.version], now.drift.share)
                for feature in now.drift.features:
                    drifted.add_metric([model, now.version, feature.name], feature.drifted)
                    for test in feature.tests:
                        drift.add_metric([model, now.version, feature.name, test.test], test.value)
            if now.quality is not None:
                quality.add_metric([model, now.version, now.quality.metric, "realised"], now.quality.value)
        yield from (drift, drifted, share, rows, quality)
        yield from self._label_metrics()
        yield from self._capture_metrics()
        yield from self._lake_metrics()

    def _label_metrics(self) -> Iterator[Metric]:
        base = ["model", "version"]
        changed = GaugeMetricFamily(
            "tidemill_label_relation_changed",
            "1 if the relation between predictions and labels changed: concept drift or poisoned labels.",
            labels=base,
        )
        distance = GaugeMetricFamily(
            "tidemill_label_relation_distance", "Distance of this relation from held-out rows, 0 to 1.", labels=base
        )
        dropped = GaugeMetricFamily(
            "tidemill_window_labels_dropped", "Labels in the window that are not used.", labels=[*base, "reason"]
        )
        outside = GaugeMetricFamily(
            "tidemill_window_labels_outside_range", "Labels in the window outside the range at training.", labels=base
        )
        for watch in self._watches:
            now, model = watch.snapshot, watch.model.name
            if now.version is None:
                continue
            if now.relation is not None:
                changed.add_metric([model, now.version], now.relation.changed)
                distance.add_metric([model, now.version], now.relation.distance)
            for reason in get_args(LabelProblem):
                dropped.add_metric([model, now.version, reason], now.dropped.get(reason, 0))
            outside.add_metric([model, now.version], now.outside)
        yield from (changed, distance, dropped, outside)

    def _capture_metrics(self) -> Iterator[Metric]:
        base = ["model", "kind"]
        unreadable = GaugeMetricFamily(
            "tidemill_unreadable_segments", "Segments of the capture that cannot be read.", labels=base
        )
        lost = CounterMetricFamily(
            "tidemill_lost_segments", "Segments that were deleted before their retention time.", labels=base
        )
        for watch in self._watches:
            for kind in KINDS:
                unreadable.add_metric([watch.model.name, kind], watch.health.unreadable(kind))
                lost.add_metric([watch.model.name, kind], watch.health.lost[kind])
        yield from (unreadable, lost)

    def _lake_metrics(self) -> Iterator[Metric]:
        published = CounterMetricFamily(
            "tidemill_published_rows", "Labelled rows published to the lake.", labels=["model"]
        )
        refused = CounterMetricFamily("tidemill_publish_refused", "Windows that the gate refused.", labels=["model"])
        withheld = CounterMetricFamily(
            "tidemill_publish_withheld_rows",
            "Labelled rows not published, because the capture omits or hashes columns.",
            labels=["model"],
        )
        capped = CounterMetricFamily(
            "tidemill_publish_capped_rows",
            "Labelled rows left out of published windows, because the API key has too large a share.",
            labels=["model", "key"],
        )
        waiting = GaugeMetricFamily(
            "tidemill_publish_waiting_rows",
            "Labelled rows above the share of their API key, which wait for labels of other keys.",
            labels=["model"],
        )
        errors = CounterMetricFamily("tidemill_monitor_errors", "Failed checks.", labels=["model", "part"])
        unvalidated = GaugeMetricFamily(
            "tidemill_unvalidated_commits",
            "Commits that changed data after the newest one that passed the gate, at most 100.",
            labels=["repository", "branch"],
        )
        branches: dict[tuple[str, str], int] = {}
        for watch in self._watches:
            model, state = watch.model.name, watch.publisher.state
            published.add_metric([model], sum(window.rows for window in state.published))
            refused.add_metric([model], state.refusals)
            withheld.add_metric([model], watch.publisher.withheld)
            waiting.add_metric([model], sum(watch.publisher.waiting.values()))
            totals = Counter[str]()
            for window in state.published:
                totals.update(window.capped)
            for key, rows in sorted(totals.items()):
                capped.add_metric([model, key], rows)
            for part in ("capture", "registry", "window", "publish", "lake"):
                errors.add_metric([model, part], watch.errors[part])
            if watch.unvalidated is not None:
                repository, branch, _ = watch.model.data.split("/", 2)
                branches[repository, branch] = max(len(watch.unvalidated), branches.get((repository, branch), 0))
        for (repository, branch), number in branches.items():
            unvalidated.add_metric([repository, branch], number)
        yield from (published, refused, withheld, capped, waiting, errors, unvalidated)


def create_app(settings: MonitorSettings) -> FastAPI:
    """Return the service; its thread runs until shutdown.

    Raises:
        NotFoundError, ConfigError: a secret is missing or empty, or the record of published windows is damaged.
    """
    token = token_of(settings.listen)
    monitor = Monitor(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        monitor.start()
        try:
            yield
        finally:
            monitor.stop()

    app = FastAPI(title="tidemill monitor", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    registry = CollectorRegistry()
    registry.register(_MonitorMetrics(monitor.watches))
    add_metrics(app, token, registry)

    @app.get("/status", dependencies=[Depends(bearer(token))])
    def status() -> dict[str, Any]:
        return {"models": [watch.status() for watch in monitor.watches]}

    @app.get("/readyz")
    def readyz(response: Response) -> dict[str, str]:
        if monitor.alive:
            return {"status": "ready"}
        response.status_code = 503
        return {"status": "the monitor thread has stopped"}

    return app
