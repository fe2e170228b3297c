"""How long it takes to check the configs of many teams, and whether that grows with their number alone.

`python -m tests.benchmarks.teams` makes projects of 50, 100 and 200 teams (two stacks, four models each), checks each
as `tidemill validate` does, and prints the seconds, and what twice as many cost. `--quick` does so with few teams.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tidemill.stacks.teams.checking import check_project

from tests.support.teams import make_project

_ROUNDS = 3


@dataclass(frozen=True)
class Measured:
    """One size of project: the best of some rounds."""

    teams: int
    stacks: int
    seconds: float


def measure(teams: int, rounds: int = _ROUNDS) -> Measured:
    """Make a project of `teams`, and check it."""
    best = float("inf")
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder) / "project", teams)
        for _ in range(rounds):
            begun = time.perf_counter()
            report = check_project(project)
            best = min(best, time.perf_counter() - begun)
            assert not report.findings, report.findings[0].as_error()
    return Measured(teams, len(report.stacks), best)


def lines(found: Sequence[Measured]) -> list[str]:
    """Return the table: what each size took, and how much more than the one before it."""
    rows = ["teams  stacks  seconds  ms a stack  against the size before"]
    for number, one in enumerate(found):
        row = f"{one.teams:5}  {one.stacks:6}  {one.seconds:7.2f}  {1000 * one.seconds / one.stacks:10.2f}"
        if number:
            before = found[number - 1]
            row += f"  {one.teams / before.teams:.1f} times the teams, {one.seconds / before.seconds:.2f} times as long"
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few teams, one round: that it runs, not how fast")
    quick = parser.parse_args(arguments).quick
    sizes = (2, 4, 8) if quick else (50, 100, 200)
    print("\n".join(lines([measure(teams, 1 if quick else _ROUNDS) for teams in sizes])))


if __name__ == "__main__":
    main()
