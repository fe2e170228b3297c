"""Traffic counts of one worker or several; plain numbers, because every request updates them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

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
        """Return (upper bound, cumulative count) pairs in Prometheus's form; the last bound is `+Inf`."""
        pairs: list[tuple[str, float]] = []
        count = 0
        for bound, more in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            count += more
            pairs.append((bound, float(count)))
        return pairs

    def to_json(self) -> dict[str, Any]:
        """Return the counts as a JSON document."""
        return {"counts": self.counts, "total": self.total}

    def add(self, other: Mapping[str, Any]) -> None:
        """Add the `to_json` of another histogram with the same bounds."""
        self.counts = [mine + more for mine, more in zip(self.counts, other["counts"], strict=True)]
        self.total += other["total"]


@dataclass
class Traffic:
    """The counts of one worker, or the sum of several.

    Attributes:
        requests: (version, status) -> answered requests; the version is empty if none answered.
        seconds: time from request to answer.
        request_rows: rows of each answered request.
        call_rows, call_seconds: rows and time of each call of the model.
        captured, dropped: rows captured; rows answered but not captured.
        capture_removed: how often the capture folder was removed while the worker ran.
        labels: labels kept.
        swaps: outcome (`done`, `failed`) -> swaps to a new version.
        shadow_rows, shadow_dropped: rows that the shadow also answered; rows that it was too slow for.
        shadow_disagreed: rows that it answered differently.
        shadow_difference: absolute difference between the two answers, if they are numbers.
    """

    requests: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])
    seconds: Histogram = field(default_factory=lambda: Histogram(REQUEST_SECONDS))
    request_rows: Histogram = field(default_factory=lambda: Histogram(ROWS))
    call_rows: Histogram = field(default_factory=lambda: Histogram(ROWS))
    call_seconds: Histogram = field(default_factory=lambda: Histogram(CALL_SECONDS))
    captured: int = 0
    dropped: int = 0
    capture_removed: int = 0
    labels: int = 0
    swaps: dict[str, int] = field(default_factory=lambda: {"done": 0, "failed": 0})
    shadow_rows: int = 0
    shadow_dropped: int = 0
    shadow_disagreed: int = 0
    shadow_difference: Histogram = field(default_factory=lambda: Histogram(DIFFERENCES))

    _HISTOGRAMS = ("seconds", "request_rows", "call_rows", "call_seconds", "shadow_difference")
    _NUMBERS = (
        *("captured", "dropped", "capture_removed", "labels"),
        *("shadow_rows", "shadow_dropped", "shadow_disagreed"),
    )

    def answered(self, version: str, status: int, seconds: float, rows: int) -> None:
        """Count one request; `rows` is 0 if no row was read."""
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
        """Return the counts as a JSON document."""
        return {
            "requests": [[version, status, count] for (version, status), count in self.requests.items()],
            "swaps": self.swaps,
            **{name: getattr(self, name).to_json() for name in self._HISTOGRAMS},
            **{name: getattr(self, name) for name in self._NUMBERS},
        }

    def add(self, other: Mapping[str, Any]) -> None:
        """Add the `to_json` of another Traffic."""
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
        """Return the sum of several `to_json` documents."""
        total = cls()
        for part in parts:
            total.add(part)
        return total
