"""How figures are taken: rounds interleaved, medians and spread, the machine's load beside them."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence


def interleave(cases: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run every case once a round, the first one changing from round to round; return case -> its figures."""
    figures: dict[str, list[float]] = {name: [] for name in cases}
    names = list(cases)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            figures[name].append(cases[name]())
            print(f"  round {turn + 1}: {name} {figures[name][-1]:.2f}", flush=True)
    return figures


def table(title: str, unit: str, figures: Mapping[str, Sequence[float]]) -> None:
    """Print medians and spread, and the machine's load."""
    print(f"{title} (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)")
    for name, values in figures.items():
        spread = f"{min(values):.2f} - {max(values):.2f}, {len(values)} rounds"
        print(f"  {name:<24} {statistics.median(values):9.2f} {unit}  ({spread})", flush=True)


def ratio_of(figures: Mapping[str, Sequence[float]], ours: str, peer: str) -> float:
    """Return the median of `ours` over that of `peer`."""
    return statistics.median(figures[ours]) / statistics.median(figures[peer])


def judge(what: str, value: float, goal: float, *, at_least: bool = False) -> bool:
    """Print `value` beside its goal and whether it meets it; return that.

    Args:
        what: what the value is.
        value: a ratio.
        goal: what it may be at most.
        at_least: it must be at least the goal instead.
    """
    met = value >= goal if at_least else value <= goal
    off = 1 - value / goal if at_least else value / goal - 1
    verdict = "met" if met else f"MISSED by {100 * off:.0f} %"
    print(f"  {what} = {value:.2f}, goal at {'least' if at_least else 'most'} {goal}: {verdict}", flush=True)
    return met


def report(title: str, unit: str, figures: Mapping[str, Sequence[float]], ours: str, peer: str, goal: float) -> float:
    """Print medians, spread, load and the ratio ours/peer beside its goal, a maximum; return the ratio."""
    table(title, unit, figures)
    ratio = ratio_of(figures, ours, peer)
    judge(f"{ours} / {peer}", ratio, goal)
    return ratio
