"""Open loop: independent clients, at the highest rate which the best of the peers sustains."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from tests.benchmarks.measure import interleave, judge, ratio_of, table
from tests.benchmarks.serving import models, wrk
from tests.benchmarks.serving.checking import bodies, check
from tests.benchmarks.serving.contestants import OURS, OWN, PEERS, STARTS, Served
from tests.benchmarks.serving.models import Model
from tests.benchmarks.serving.openloop import Result, poisson, run

BOUND_MS = 100.0
"""A rate is sustained when 99 of 100 answers take no longer, and none fails."""

_STEPS = 5


def offer(
    served: Served, model: Model, rate: float, seconds: float, *, seed: int = 1, connections: int = 512
) -> Result:
    """Offer `rate` requests a second, one different row each, at the times of independent clients."""
    requests = [served.request(body) for body in bodies(served, model)]
    return run(served.server.address, requests, poisson(rate, seconds, seed), connections=connections)


def sustained(result: Result) -> bool:
    """Tell whether the server kept up."""
    return bool(result.good.all()) and result.percentile(99) <= BOUND_MS


def sustainable_rate(served: Served, model: Model, seconds: float) -> float:
    """Return the highest rate which `served` sustains, found by halving; 0 where it is below a fifth of its best."""
    best = wrk.load(served, bodies(served, model), connections=64, seconds=min(4.0, seconds)).rate
    low, high = 0.0, 1.1 * best
    for step in range(_STEPS):
        rate = 0.7 * best if step == 0 else (low + high) / 2
        result = offer(served, model, rate, seconds, seed=step)
        good = sustained(result)
        print(
            f"  {served.name}: {rate:.0f}/s {'' if good else 'not '}sustained: p50 {result.percentile(50):.1f}, "
            f"p99 {result.percentile(99):.1f} ms, {result.count()}, generator late by {result.late():.2f} ms (p99)",
            flush=True,
        )
        low, high = (rate, high) if good else (low, rate)
    return low


def opened(rounds: int, seconds: float) -> bool:
    """Find the best peer's sustainable rate and compare latencies at it; return whether the goal was met."""
    with tempfile.TemporaryDirectory() as work:
        model = models.make("trees", Path(work))
        turn = iter(range(10_000))

        def folder() -> Path:
            return Path(work) / f"run-{next(turn)}"

        rates: dict[str, float] = {}
        for name in PEERS:
            with STARTS[name](model, folder()) as served:
                check(served, model)
                rates[name] = sustainable_rate(served, model, seconds)
        best = max(PEERS, key=lambda name: rates[name])
        rate = rates[best]
        if not rate:
            raise SystemExit("no peer sustains any rate: the machine is too busy to measure on")
        print(
            f"sustainable: {', '.join(f'{name} {value:.0f}/s' for name, value in rates.items())}; taken: {rate:.0f}/s"
        )
        medians: dict[str, list[float]] = {}
        late: list[float] = []
        failed: dict[str, int] = {}

        def case(name: str) -> float:
            with STARTS[name](model, folder()) as served:
                check(served, model)
                offer(served, model, rate, min(2.0, seconds), seed=99)
                # The same times for all within a round, others in the next.
                result = offer(served, model, rate, seconds, seed=len(medians.get(name, ())))
            medians.setdefault(name, []).append(result.percentile(50))
            late.append(result.late())
            failed[name] = failed.get(name, 0) + int((~result.good).sum())
            return result.percentile(99)

        figures = interleave({name: lambda name=name: case(name) for name in (OURS, OWN, best)}, rounds)
    table(f"Open loop, {rate:.0f} requests/s, p50", "ms", medians)
    table(f"Open loop, {rate:.0f} requests/s, p99", "ms", figures)
    print(f"  requests without a good answer: {failed}; generator late by {statistics.median(late):.2f} ms (p99)")
    met = judge(f"p99 at {rate:.0f}/s: {OURS} / {best}", ratio_of(figures, OURS, best), 0.1)
    ratio = ratio_of(figures, OWN, best)
    print(f"  for information: {OWN} / {best} = {ratio:.2f}")
    return met and failed[OURS] == 0
