"""Soak: minutes of load, and whether memory, open files or latency grow."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.measure import judge
from tests.benchmarks.serving import models
from tests.benchmarks.serving.checking import check
from tests.benchmarks.serving.contestants import Served, tidemill
from tests.benchmarks.serving.models import Model
from tests.benchmarks.serving.opened import offer

RATE = 2_000.0


@dataclass(frozen=True)
class Slice:
    """One stretch of the soak: memory in MB and open files at its end, latencies in ms, requests without an answer."""

    rss: float
    handles: int
    p50: float
    p99: float
    sent: int
    failed: int


def soak(served: Served, model: Model, slices: int, seconds: float, rate: float = RATE) -> list[Slice]:
    """Load `served` for `slices` stretches of `seconds`; return what was seen in each."""
    seen: list[Slice] = []
    for one in range(slices):
        result = offer(served, model, rate, seconds, seed=one, connections=64)
        seen.append(
            Slice(
                served.server.memory().all_rss,
                served.server.handles(),
                result.percentile(50),
                result.percentile(99),
                len(result.status),
                int((~result.good).sum()),
            )
        )
        print(f"  {one + 1}: {seen[-1]}", flush=True)
    return seen


def growth(values: Sequence[float]) -> float:
    """Return the median of the last third over that of the third before it; the first one is warming up."""
    third = max(1, len(values) // 3)
    return statistics.median(values[-third:]) / statistics.median(values[-2 * third : -third])


def soaked(slices: int, seconds: float) -> bool:
    """Soak tidemill; return whether nothing grew."""
    print(f"Soak: {RATE:.0f} requests/s, {slices} times {seconds:.0f} s")
    with tempfile.TemporaryDirectory() as work:
        model = models.make("trees", Path(work))
        with tidemill(model, Path(work) / "run") as served:
            check(served, model)
            seen = soak(served, model, slices, seconds)
    failed = sum(one.failed for one in seen)
    print(f"  {sum(one.sent for one in seen):,} requests, {failed} without a good answer")
    met = [
        judge("memory, last third / middle third", growth([one.rss for one in seen]), 1.03),
        judge("open files, last third / middle third", growth([one.handles for one in seen]), 1.05),
        judge("p50, last third / middle third", growth([one.p50 for one in seen]), 1.25),
    ]
    return all(met) and failed == 0
