"""How long it takes to find a request, 90 days old, in what was captured.

    python -m tests.benchmarks.serving.find [--rows 4000000] [--segments 40000] [--days 90] [--keep DIR]

Builds a capture of that size, with 1 % of the segments written days after their requests (a disk which was full, a
server which was killed). Then, each time with the files dropped from the page cache, `tidemill capture find` is asked
for requests: the oldest ones, late ones, ones at the end of a segment of six hours, and one which was never captured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tidemill.runtime.capture import CAPTURE, capture_schema
from tidemill.runtime.common.ids import uuid7_at

from tests.support.platform import BIN

FEATURES = pa.struct([*((f"x{index}", pa.float64()) for index in range(8)), ("carrier", pa.string())])
OUTPUTS = pa.struct([("score", pa.float64())])
LATE = 100
LONG = 150


@dataclass
class Known:
    """Requests which are there, by kind, with the segments which hold them."""

    oldest: list[tuple[str, Path]]
    late: list[tuple[str, Path]]
    long: list[tuple[str, Path]]


def build(directory: Path, rows: int, segments: int, days: int) -> Known:
    """Write the capture; return some of its requests."""
    generator = np.random.default_rng(5)
    each = max(2, rows // segments)
    end = datetime.now(UTC)
    start = end - timedelta(days=days)
    step = (end - start) / segments
    known = Known([], [], [])
    for number in range(segments):
        first = start + step * number
        # Some go on for long: their last request is far from the time which the segment's name tells.
        span = timedelta(hours=6) if number % LONG == 1 else min(step, timedelta(seconds=5))
        moments = [(first + span * index / each).timestamp() for index in range(each)]
        ids = [str(uuid7_at(moment)) for moment in moments]
        late = number % LATE == 2
        written = min(first + span + timedelta(days=1 + number // LATE % 9 if late else 0), end)
        path = _write(directory, written.date(), ids, moments, generator)
        if number < max(segments // days, 10):
            known.oldest.append((ids[each // 2], path))
        if late:
            known.late.append((ids[-1], path))
        if number % LONG == 1:
            known.long.append((ids[-1], path))
    return known


def _write(directory: Path, day: date, ids: list[str], moments: list[float], generator: np.random.Generator) -> Path:
    count = len(ids)
    times = (np.array(moments) * 1e6).astype("int64").view("datetime64[us]")
    numbers = [pa.array(generator.random(count)) for _ in range(8)]
    values = [
        pa.array(ids),
        pa.nulls(count, pa.string()),
        pa.array(np.zeros(count, "int32")),
        pa.array(times, pa.timestamp("us", tz="UTC")),
        pa.array(times, pa.timestamp("us", tz="UTC")),
        pa.array(["flights"] * count),
        pa.array(["1"] * count),
        pa.array(["champion"] * count),
        pa.array(["platform"] * count),
        pa.StructArray.from_arrays([*numbers, pa.array(["UA"] * count)], fields=list(FEATURES)),
        pa.StructArray.from_arrays([pa.array(generator.random(count))], fields=list(OUTPUTS)),
        pa.nulls(count, pa.string()),
    ]
    folder = directory / CAPTURE / f"date={day.isoformat()}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{uuid7_at(moments[0])}.parquet"
    # Not synced, as a server would: this is no benchmark of the disk.
    pq.write_table(pa.Table.from_arrays(values, schema=capture_schema(FEATURES, OUTPUTS)), path, compression="zstd")
    return path


def forget_pages(directory: Path) -> None:
    """Drop the files below `directory` from the page cache, where the system can."""
    os.sync()
    if hasattr(os, "posix_fadvise"):
        for path in directory.rglob("*.parquet"):
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def ask(directory: Path, request_id: str, path: Path | None) -> float:
    """Look for a request; return the seconds which the command took.

    Raises:
        SystemExit: the answer is wrong.
    """
    command = [str(BIN / "tidemill"), "capture", "find", request_id, "--directory", str(directory), "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    found = [each["path"] for each in json.loads(done.stdout)["found"]]
    if found != ([] if path is None else [str(path)]):
        raise SystemExit(f"{request_id}: found in {found}, is in {path}")
    return seconds


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--segments", type=int, default=40_000)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--asked", type=int, default=5, help="requests of each kind")
    parser.add_argument("--keep", type=Path, help="build it here, and leave it")
    arguments = parser.parse_args(argv)
    with ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemill-find-")))
        started = time.perf_counter()
        known = build(folder, arguments.rows, arguments.segments, arguments.days)
        print(f"{arguments.rows} rows in {arguments.segments} segments over {arguments.days} days, "
              f"built in {time.perf_counter() - started:.0f} s")  # fmt: skip
        never = [(str(uuid7_at(time.time() - arguments.days / 2 * 86400)), None)]
        kinds = {"oldest": known.oldest, "written late": known.late, "end of a long segment": known.long}
        for kind, there in [*kinds.items(), ("never captured", never)]:
            taken: list[float] = []
            for request_id, path in there[:: max(1, len(there) // arguments.asked)][: arguments.asked]:
                forget_pages(folder)
                taken.append(ask(folder, request_id, path))
            print(f"{kind:<22} median {statistics.median(taken):.2f} s, worst {max(taken):.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
