"""tidemill's model server against its peers.

    python -m tests.benchmarks.serving [closed|open|mixed|memory|batches|overload|soak|all] [--rounds N] [--quick]

Each peer runs in an environment of its own, made with uv and kept in the user's cache. Every server has one worker, on
the loopback interface. All of 512 different rows asked at once must be answered as the model itself does before a
server is timed. tidemill runs with everything that its users have: validation, API key, capture of all requests,
metrics, and an access log of all requests. docs/benchmarks.md says more.
"""

from __future__ import annotations

import argparse
import sys

from tests.benchmarks.serving.batches import batches
from tests.benchmarks.serving.closed import closed, memory, mixed
from tests.benchmarks.serving.opened import opened
from tests.benchmarks.serving.overload import overloads
from tests.benchmarks.serving.soak import soaked

ALL = ("closed", "open", "mixed", "memory", "batches", "overload", "soak")


def main() -> int:
    """Run what is asked for, or everything; return 1 where a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[*ALL, "all"], default=["all"], metavar="|".join([*ALL, "all"]))
    parser.add_argument("--rounds", type=int, default=5, help="how often each server is measured")
    parser.add_argument("--quick", action="store_true", help="one round of short measurements: does it all work?")
    args = parser.parse_args()
    rounds, seconds = (1, 2.0) if args.quick else (args.rounds, 10.0)
    runs = {
        "closed": lambda: closed(rounds, seconds),
        "open": lambda: opened(rounds, seconds),
        "mixed": lambda: mixed(rounds, seconds),
        "memory": lambda: memory(rounds, seconds),
        "batches": lambda: batches(rounds, seconds),
        "overload": lambda: overloads(2 * seconds),
        "soak": lambda: soaked(6, seconds) if args.quick else soaked(10, 60.0),
    }
    print(
        "tidemill runs with validation, API key, capture of all requests, metrics, access log of all requests; "
        "one worker each, loopback."
    )
    met = {name: run() for name, run in runs.items() if name in args.what or "all" in args.what}
    print(", ".join(f"{name}: {'met' if good else 'MISSED'}" for name, good in met.items()))
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
