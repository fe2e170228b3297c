"""What `/metrics` shows: the traffic of all workers added up, and how they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .traffic import Histogram, Traffic

__all__ = ["Notice", "ServedVersion", "ServingCollector", "registry_of"]


class ServedVersion(TypedDict):
    """What a worker says of the version it serves."""

    version: str
    alias: str
    engine: str
    lake_commit: str
    git_commit: str


class Notice(TypedDict):
    """What a worker says of itself, to the others and to whoever asks.

    Attributes:
        traffic: `Traffic.to_json` of it.
        recent: `Recent.to_json` of it.
        requests: answered since its start.
        served: what serves, or None.
        failed: the version which should serve and cannot, or None.
        missing: the registry answers, and has no such alias.
        reachable: the registry answered last time; None before the first time, and where there is none.
        shadow: the shadow's version, or None.
        waiting_rows: rows which wait for the model.
        swaps: the newest first, as in `/status`.
    """

    index: int
    pid: int
    traffic: dict[str, Any]
    recent: Any
    requests: int
    served: ServedVersion | None
    failed: str | None
    missing: bool
    reachable: bool | None
    shadow: str | None
    waiting_rows: int
    swaps: list[Any]


class ServingCollector(Collector):
    """Collects the metrics of the server of `model` anew for each scrape.

    Args:
        model: its name.
        notices: returns what each worker says of itself.
        ended: returns the traffic of workers which ended, or None.
    """

    def __init__(
        self, model: str, notices: Callable[[], Sequence[Notice]], ended: Callable[[], Mapping[str, Any] | None]
    ) -> None:
        self._model = model
        self._notices = notices
        self._ended = ended

    def collect(self) -> Iterable[Metric]:
        """Yield the families."""
        notices = self._notices()
        ended = self._ended()
        traffic = Traffic.summed([notice["traffic"] for notice in notices] + ([ended] if ended else []))
        yield from self._counted(traffic)
        yield from self._states(notices)

    def _counted(self, traffic: Traffic) -> Iterable[Metric]:
        requests = CounterMetricFamily("tidemill_requests", "Answered requests.", labels=["model", "version", "code"])
        for (version, status), count in sorted(traffic.requests.items()):
            requests.add_metric([self._model, version, str(status)], count)
        yield requests
        for name, text, histogram in (
            ("tidemill_request_seconds", "Time from request to answer.", traffic.seconds),
            ("tidemill_request_rows", "Rows of an answered request.", traffic.request_rows),
            ("tidemill_batch_rows", "Rows in one call of the model.", traffic.call_rows),
            ("tidemill_call_seconds", "Time of one call of the model.", traffic.call_seconds),
            (
                "tidemill_shadow_difference",
                "Absolute difference between the shadow's answer and the one which was given.",
                traffic.shadow_difference,
            ),
        ):
            yield self._histogram(name, text, histogram)
        # Shown also while they are nought: a series which appears with its first event hides it from `increase`.
        for name, text, count in (
            ("tidemill_captured_rows", "Rows captured.", traffic.captured),
            ("tidemill_capture_dropped", "Rows answered and not captured.", traffic.dropped),
            ("tidemill_labels", "Labels kept.", traffic.labels),
            ("tidemill_shadow_rows", "Rows which the shadow answered too.", traffic.shadow_rows),
            ("tidemill_shadow_dropped", "Rows which the shadow was too slow for.", traffic.shadow_dropped),
            ("tidemill_shadow_disagreed", "Rows in which the shadow's answer was another.", traffic.shadow_disagreed),
        ):
            family = CounterMetricFamily(name, text, labels=["model"])
            family.add_metric([self._model], count)
            yield family
        swaps = CounterMetricFamily("tidemill_swaps", "New versions, taken or not.", labels=["model", "outcome"])
        for outcome, count in sorted(traffic.swaps.items()):
            swaps.add_metric([self._model, outcome], count)
        yield swaps

    def _histogram(self, name: str, text: str, histogram: Histogram) -> Metric:
        family = HistogramMetricFamily(name, text, labels=["model"])
        family.add_metric([self._model], histogram.cumulative(), histogram.total)
        return family

    def _states(self, notices: Sequence[Notice]) -> Iterable[Metric]:
        info = GaugeMetricFamily(
            "tidemill_model_info",
            "1 for a version which serves.",
            labels=["model", "version", "alias", "lake_commit", "git_commit"],
        )
        engine = GaugeMetricFamily(
            "tidemill_model_engine",
            "1 for the engine by which a version is served.",
            labels=["model", "version", "engine"],
        )
        served = {tuple(sorted(notice["served"].items())): notice["served"] for notice in notices if notice["served"]}
        for version in served.values():
            info.add_metric(
                [self._model, *(version[key] for key in ("version", "alias", "lake_commit", "git_commit"))], 1
            )
            engine.add_metric([self._model, version["version"], version["engine"]], 1)
        yield info
        yield engine
        failed = GaugeMetricFamily(
            "tidemill_model_load_failed", "1 for a version which should serve and cannot.", labels=["model", "version"]
        )
        for version in sorted({notice["failed"] for notice in notices if notice["failed"]}):
            failed.add_metric([self._model, version], 1)
        yield failed
        for name, text, value in (
            (
                "tidemill_champion_missing",
                "1 when the registry answers and has no such alias.",
                any(notice["missing"] for notice in notices),
            ),
            (
                "tidemill_registry_reachable",
                "1 when the registry answered every worker last time, or none is needed.",
                all(notice["reachable"] is not False for notice in notices),
            ),
            ("tidemill_workers", "Processes which answer.", len(notices)),
            ("tidemill_waiting_rows", "Rows which wait for the model.", sum(n["waiting_rows"] for n in notices)),
        ):
            gauge = GaugeMetricFamily(name, text, labels=["model"])
            gauge.add_metric([self._model], float(value))
            yield gauge


def registry_of(collector: ServingCollector) -> CollectorRegistry:
    """Return a registry of its own with `collector`."""
    registry = CollectorRegistry()
    registry.register(collector)
    return registry
