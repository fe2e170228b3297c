"""Overload: four times what the server can answer is offered; it must answer what it can, and refuse the rest."""

from __future__ import annotations

import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.benchmarks.measure import judge
from tests.benchmarks.serving import models, wrk
from tests.benchmarks.serving.checking import bodies, check
from tests.benchmarks.serving.contestants import Served, tidemill
from tests.benchmarks.serving.models import Model
from tests.benchmarks.serving.opened import offer
from tests.benchmarks.serving.openloop import Result

TIMES = 4
MOST = 20_000.0
"""Requests a second which the generator sends from one core, with a margin."""

REFUSALS = {429, 503}
_GROWTH = 1.1


@dataclass(frozen=True)
class Seen:
    """What an overload did.

    Attributes:
        best: answers a second in a closed loop of 64 connections, just before.
        offered: requests a second.
        goodput: good answers a second while they were offered.
        result: every request.
        memory: RSS in MB, taken twice a second.
    """

    best: float
    offered: float
    goodput: float
    result: Result
    memory: list[float]


def overload(served: Served, model: Model, seconds: float) -> Seen:
    """Measure the best rate of `served`, then offer it four times as much, or as much as the generator can."""
    sent = bodies(served, model)
    wrk.load(served, sent, connections=64, seconds=min(2.0, seconds))
    best = wrk.load(served, sent, connections=64, seconds=seconds).rate
    offered = min(TIMES * best, MOST)
    memory: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            memory.append(served.server.memory().all_rss)
            done.wait(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = offer(served, model, offered, seconds, connections=1_000)
    finally:
        done.set()
        watcher.join()
    within = result.good & (result.answered <= seconds)
    return Seen(best, offered, float(within.sum()) / seconds, result, memory)


def tell(name: str, seen: Seen) -> bool:
    """Print what happened beside the goals; return whether they were met."""
    result = seen.result
    refused = np.isin(result.status, list(REFUSALS))
    times = seen.offered / seen.best
    print(f"Overload of {name}: best {seen.best:.0f}/s, offered {seen.offered:.0f}/s ({times:.1f} times)")
    print(
        f"  answered {seen.goodput:.0f}/s, p50 {result.percentile(50, result.good):.1f}, "
        f"p99 {result.percentile(99, result.good):.1f} ms; {result.count()}"
    )
    if refused.any():
        # From when they left: what they waited in a late generator says nothing about the server.
        median, most = 1e3 * np.percentile(result.served_in[refused], (50, 99), method="higher")
        print(f"  refused in p50 {median:.1f}, p99 {most:.1f} ms")
    print(f"  generator late by {result.late(50):.1f} (p50), {result.late():.1f} ms (p99)")
    print(f"  RSS {seen.memory[0]:.0f} MB at first, {max(seen.memory):.0f} at most, {seen.memory[-1]:.0f} at the end")
    unsent = np.isnan(result.sent)
    others = int((~result.good & ~refused & ~unsent).sum())
    print(f"  neither answered nor refused: {others}; never sent by the generator: {int(unsent.sum())}")
    good = judge("goodput / best", seen.goodput / seen.best, 0.9, at_least=True)
    flat = judge("memory at most / at first", max(seen.memory) / seen.memory[0], _GROWTH)
    return good and flat and others == 0


def overloads(seconds: float) -> bool:
    """Overload a model whose call dominates, and the fast one; return whether the first met the goals."""
    met = True
    with tempfile.TemporaryDirectory() as work:
        for name, compiled in (("forest", False), ("trees", True)):
            model = models.make(name, Path(work))
            with tidemill(model, Path(work) / f"run-{name}", compiled=compiled) as served:
                check(served, model)
                good = tell(f"{served.name}, {name}", overload(served, model, seconds))
                met = met and (good or name != "forest")
    return met
