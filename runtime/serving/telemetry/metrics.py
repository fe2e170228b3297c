"""The metrics at `/metrics`: the summed traffic of all workers and the state of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .traffic import Traffic
from .worker_status import WorkerStatus

_VERSION_LABELS = ("version", "alias", "lake_commit", "git_commit")


class ServingCollector(Collector):
    """Collects the metrics of a model server at each scrape.

    Args:
        model: name of the model.
        statuses: returns the status of each worker.
        ended_traffic: returns the summed traffic of ended workers, or None.
    """

    def __init__(
        self,
        model: str,
        statuses: Callable[[], Sequence[WorkerStatus]],
        ended_traffic: Callable[[], Mapping[str, Any] | None],
    ) -> None:
        self._model = model
        self._statuses = statuses
        self._ended_traffic = ended_traffic

    def collect(self) -> Iterable[Metric]:
        """Yield the metric families."""
        statuses = self._statuses()
        ended = self._ended_traffic()
        parts = [status["traffic"] for status in statuses] + ([ended] if ended else [])
        yield from self._traffic(Traffic.summed(parts))
        yield from self._states(statuses)

    def _traffic(self, traffic: Traffic) -> Iterable[Metric]:
        requests = {(version, str(code)): count for (version, code), count in sorted(traffic.requests.items())}
        yield self._counter("tidemill_requests", "Answered requests.", requests, "version", "code")
        difference = "Absolute difference between the answers of the shadow and of the model."
        for name, text, histogram in (
            ("tidemill_request_seconds", "Time from request to answer.", traffic.seconds),
            ("tidemill_request_rows", "Rows of an answered request.", traffic.request_rows),
            ("tidemill_batch_rows", "Rows in one call of the model.", traffic.call_rows),
            ("tidemill_call_seconds", "Time of one call of the model.", traffic.call_seconds),
            ("tidemill_shadow_difference", difference, traffic.shadow_difference),
        ):
            family = HistogramMetricFamily(name, text, labels=["model"])
            family.add_metric([self._model], histogram.cumulative(), histogram.total)
            yield family
        # Also shown at zero: `increase` does not see the first event of a series that starts with it.
        for name, text, count in (
            ("tidemill_captured_rows", "Rows captured.", traffic.captured),
            ("tidemill_capture_dropped", "Rows answered but not captured.", traffic.dropped),
            ("tidemill_capture_folder_removed", "Removals of the capture folder, by worker.", traffic.capture_removed),
            ("tidemill_labels", "Labels kept.", traffic.labels),
            ("tidemill_shadow_rows", "Rows that the shadow also answered.", traffic.shadow_rows),
            ("tidemill_shadow_dropped", "Rows that the shadow was too slow for.", traffic.shadow_dropped),
            ("tidemill_shadow_disagreed", "Rows that the shadow answered differently.", traffic.shadow_disagreed),
        ):
            yield self._counter(name, text, {(): count})
        swaps = {(outcome,): count for outcome, count in sorted(traffic.swaps.items())}
        yield self._counter("tidemill_swaps", "Swaps to a new version.", swaps, "outcome")

    def _states(self, statuses: Sequence[WorkerStatus]) -> Iterable[Metric]:
        served = {tuple(sorted(status["served"].items())): status["served"] for status in statuses if status["served"]}
        info = {tuple(version[label] for label in _VERSION_LABELS): 1 for version in served.values()}
        yield self._gauge("tidemill_model_info", "1 for a served version.", info, *_VERSION_LABELS)
        engines = {(version["version"], version["engine"]): 1 for version in served.values()}
        text = "1 for the engine that serves a version."
        yield self._gauge("tidemill_model_engine", text, engines, "version", "engine")
        failed = {(version,): 1 for version in sorted({status["failed"] for status in statuses if status["failed"]})}
        yield self._gauge("tidemill_model_load_failed", "1 for a version that failed to load.", failed, "version")
        missing = "1 if the registry has no alias and no version ever served or was promoted."
        lost = "1 if the registry has no alias although a version served or was promoted before."
        reachable = "1 if the registry answered the last request of every worker, or no registry is used."
        waiting_rows = sum(status["waiting_rows"] for status in statuses)
        for name, text, value in (
            (
                "tidemill_champion_missing",
                missing,
                any(status["missing"] and not status["lost"] for status in statuses),
            ),
            ("tidemill_alias_missing", lost, any(status["lost"] for status in statuses)),
            ("tidemill_registry_reachable", reachable, all(status["reachable"] is not False for status in statuses)),
            ("tidemill_workers", "Worker processes.", len(statuses)),
            ("tidemill_waiting_rows", "Rows waiting for the model.", waiting_rows),
        ):
            yield self._gauge(name, text, {(): float(value)})

    def _counter(self, name: str, text: str, samples: Mapping[tuple[str, ...], float], *labels: str) -> Metric:
        family = CounterMetricFamily(name, text, labels=["model", *labels])
        for values, count in samples.items():
            family.add_metric([self._model, *values], count)
        return family

    def _gauge(self, name: str, text: str, samples: Mapping[tuple[str, ...], float], *labels: str) -> Metric:
        family = GaugeMetricFamily(name, text, labels=["model", *labels])
        for values, value in samples.items():
            family.add_metric([self._model, *values], value)
        return family


def create_registry(collector: ServingCollector) -> CollectorRegistry:
    """Return a new registry with `collector` only."""
    registry = CollectorRegistry()
    registry.register(collector)
    return registry
