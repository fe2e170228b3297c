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


def report(title: str, unit: str, figures: Mapping[str, Sequence[float]], ours: str, peer: str, goal: float) -> float:
    """Print medians, spread, load and the ratio ours/peer beside its goal; return the ratio."""
    print(f"{title} (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)")
    for name, values in figures.items():
        spread = f"{min(values):.2f} - {max(values):.2f}, {len(values)} rounds"
        print(f"  {name:<24} {statistics.median(values):9.2f} {unit}  ({spread})")
    ratio = statistics.median(figures[ours]) / statistics.median(figures[peer])
    verdict = "met" if ratio <= goal else f"MISSED by {100 * (ratio / goal - 1):.0f} %"
    print(f"  {ours} / {peer} = {ratio:.2f}, goal at most {goal}: {verdict}")
    return ratio
