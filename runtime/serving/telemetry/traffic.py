"""What is counted of the traffic. Plain numbers, since they are touched with every request; `metrics` shows them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CALL_SECONDS", "DIFFERENCES", "REQUEST_SECONDS", "ROWS", "Histogram", "Traffic"]

REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CALL_SECONDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)
ROWS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0)
DIFFERENCES = (0.0, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Histogram:
    """Counts of values in buckets with the upper bounds `bounds`, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count `value`."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Return (bound, count up to it) as Prometheus wants them, the last one `+Inf`."""
        found: list[tuple[str, float]] = []
        count = 0
        for bound, more in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            count += more
            found.append((bound, float(count)))
        return found

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {"counts": self.counts, "total": self.total}

    def add(self, other: Mapping[str, Any]) -> None:
        """Add what `to_json` of another one with the same bounds gave."""
        self.counts = [mine + more for mine, more in zip(self.counts, other["counts"], strict=True)]
        self.total += other["total"]


@dataclass
class Traffic:
    """The counts of one worker, or of several added up.

    Attributes:
        requests: (version, status) -> answered requests; the version is empty where none answered.
        seconds: from a request's head to its answer.
        request_rows: rows of the requests which were answered.
        call_rows, call_seconds: rows and time of each call of the model.
        captured, dropped: rows captured; rows answered and not captured.
        labels: labels kept.
        swaps: outcome (`done`, `failed`) -> how often a new version was taken, or could not be.
        shadow_rows, shadow_dropped: rows which the shadow answered too; rows which it was too slow for.
        shadow_disagreed: rows in which its answer was another one.
        shadow_difference: absolute difference of the two answers, where they are numbers.
    """

    requests: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])
    seconds: Histogram = field(default_factory=lambda: Histogram(REQUEST_SECONDS))
    request_rows: Histogram = field(default_factory=lambda: Histogram(ROWS))
    call_rows: Histogram = field(default_factory=lambda: Histogram(ROWS))
    call_seconds: Histogram = field(default_factory=lambda: Histogram(CALL_SECONDS))
    captured: int = 0
    dropped: int = 0
    labels: int = 0
    swaps: dict[str, int] = field(default_factory=lambda: {"done": 0, "failed": 0})
    shadow_rows: int = 0
    shadow_dropped: int = 0
    shadow_disagreed: int = 0
    shadow_difference: Histogram = field(default_factory=lambda: Histogram(DIFFERENCES))

    _HISTOGRAMS = ("seconds", "request_rows", "call_rows", "call_seconds", "shadow_difference")
    _NUMBERS = ("captured", "dropped", "labels", "shadow_rows", "shadow_dropped", "shadow_disagreed")

    def answered(self, version: str, status: int, seconds: float, rows: int) -> None:
        """Count one request; `rows` is 0 where none was read."""
        key = (version, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        self.seconds.observe(seconds)
        if rows:
            self.request_rows.observe(rows)

    def called(self, rows: int, seconds: float) -> None:
        """Count one call of the model."""
        self.call_rows.observe(rows)
        self.call_seconds.observe(seconds)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "requests": [[version, status, count] for (version, status), count in self.requests.items()],
            "swaps": self.swaps,
            **{name: getattr(self, name).to_json() for name in self._HISTOGRAMS},
            **{name: getattr(self, name) for name in self._NUMBERS},
        }

    def add(self, other: Mapping[str, Any]) -> None:
        """Add what `to_json` of another one gave."""
        for version, status, count in other["requests"]:
            self.requests[version, status] = self.requests.get((version, status), 0) + count
        for outcome, count in other["swaps"].items():
            self.swaps[outcome] = self.swaps.get(outcome, 0) + count
        for name in self._HISTOGRAMS:
            getattr(self, name).add(other[name])
        for name in self._NUMBERS:
            setattr(self, name, getattr(self, name) + other[name])

    @classmethod
    def summed(cls, parts: Iterable[Mapping[str, Any]]) -> Traffic:
        """Return the sum of what `to_json` of several gave."""
        whole = cls()
        for part in parts:
            whole.add(part)
        return whole
