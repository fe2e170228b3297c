"""Closed loop: 8 and 64 connections of which each asks again as soon as it has its answer; and memory after that."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.measure import interleave, judge, ratio_of, table
from tests.benchmarks.serving import models, wrk
from tests.benchmarks.serving.checking import bodies, check
from tests.benchmarks.serving.contestants import OURS, OWN, PEERS, STARTS, Start
from tests.benchmarks.serving.models import Model
from tests.benchmarks.serving.processes import Memory

FEW, MANY = 8, 64


@dataclass
class Figures:
    """Name -> one figure a round."""

    rates: dict[int, dict[str, list[float]]] = field(default_factory=dict[int, dict[str, list[float]]])
    p99: dict[int, dict[str, list[float]]] = field(default_factory=dict[int, dict[str, list[float]]])
    cpu: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    memory: dict[str, list[Memory]] = field(default_factory=dict[str, list[Memory]])
    failed: dict[str, int] = field(default_factory=dict[str, int])


def measure(start: Start, model: Model, folder: Path, name: str, figures: Figures, seconds: float) -> float:
    """Start a server, check it, load it with few and with many connections; return its rate with many.

    Each starts again in every round, so none is measured next to idle ones, which still use some CPU.
    """
    with start(model, folder) as served:
        check(served, model)
        sent = bodies(served, model)
        rate = cpu = 0.0
        for connections in (FEW, MANY):
            wrk.load(served, sent, connections=connections, seconds=min(2.0, seconds))
            before = served.server.cpu_seconds()
            seen = wrk.load(served, sent, connections=connections, seconds=seconds)
            cpu = served.server.cpu_seconds() - before
            figures.rates.setdefault(connections, {}).setdefault(name, []).append(seen.rate)
            figures.p99.setdefault(connections, {}).setdefault(name, []).append(seen.p99)
            figures.failed[name] = figures.failed.get(name, 0) + seen.failed
            rate = seen.rate
        # Of the load with many connections, the last one.
        figures.cpu.setdefault(name, []).append(1e6 * cpu / (rate * seconds))
        figures.memory.setdefault(name, []).append(served.server.memory())
        return rate


def rounds_of(model_name: str, rounds: int, seconds: float, names: Sequence[str]) -> Figures:
    """Measure the servers `names` in interleaved rounds, and print rates, latencies and failures."""
    figures = Figures()
    with tempfile.TemporaryDirectory() as work:
        model = models.make(model_name, Path(work))
        turn = iter(range(10_000))

        def case(name: str) -> float:
            return measure(STARTS[name], model, Path(work) / f"run-{next(turn)}", name, figures, seconds)

        interleave({name: lambda name=name: case(name) for name in names}, rounds)
    for connections in (FEW, MANY):
        table(f"{model_name}, {connections} connections", "answers/s", figures.rates[connections])
        table(f"{model_name}, {connections} connections, p99", "ms", figures.p99[connections])
    # It depends less than the rate on what else the machine does.
    table(f"{model_name}, {MANY} connections, computing time of the server", "us/answer", figures.cpu)
    print(f"  requests without a good answer: {figures.failed}")
    return figures


def best_of(rates: Mapping[str, Sequence[float]], names: Sequence[str] = PEERS) -> str:
    """Return the one of `names` with the highest median."""
    return max(names, key=lambda name: statistics.median(rates[name]))


def _judge(figures: Figures, connections: int, ours: str, over_mlflow: float, over_best: float) -> bool:
    rates = figures.rates[connections]
    best = best_of(rates)
    first = judge(
        f"{connections} connections: {ours} / mlflow", ratio_of(rates, ours, "mlflow"), over_mlflow, at_least=True
    )
    second = judge(f"{connections} connections: {ours} / {best}", ratio_of(rates, ours, best), over_best, at_least=True)
    return first and second


def closed(rounds: int, seconds: float) -> bool:
    """Measure the model of ten numbers; return whether all goals were met."""
    figures = rounds_of("trees", rounds, seconds, [*STARTS])
    met = [
        _judge(figures, MANY, OURS, 40, 12),
        _judge(figures, MANY, OWN, 30, 6),
        _judge(figures, FEW, OURS, 20, 8),
    ]
    return all(met) and figures.failed[OURS] + figures.failed[OWN] == 0


def mixed(rounds: int, seconds: float) -> bool:
    """Measure the model of a hundred mixed columns; return whether all goals were met."""
    figures = rounds_of("mixed", rounds, seconds, [OURS, OWN, "mlflow", *PEERS])
    return _judge(figures, MANY, OURS, 8, 12) and figures.failed[OURS] == 0


def memory(rounds: int, seconds: float) -> bool:
    """Measure memory after load; return whether the goal was met."""
    figures = rounds_of("trees", rounds, seconds, [OURS, OWN, "mlflow", *PEERS])
    kinds = {
        "RSS": lambda one: one.all_rss,
        "PSS": lambda one: one.all_pss,
        "RSS of the largest process": lambda one: one.rss,
    }
    met = True
    for kind, of in kinds.items():
        values = {name: [of(one) for one in seen] for name, seen in figures.memory.items()}
        table(f"Memory after load, {kind}", "MB", values)
        smallest = min(("mlflow", *PEERS), key=lambda name: statistics.median(values[name]))
        if kind == "RSS":
            # Of a server with one worker: some take several processes to answer with one.
            met = judge(f"{kind}: {OURS} / {smallest}", ratio_of(values, OURS, smallest), 0.6)
        else:
            print(f"  for information: {OURS} / {smallest} = {ratio_of(values, OURS, smallest):.2f}")
    return met
