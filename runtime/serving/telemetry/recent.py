"""Counts the traffic of the last minutes per second, and merges the counts of all workers into rates.

recent = Recent()
recent.record(0.0021, 1, False)  # a request
recent.called(1)  # a call of the model
merge_rates([recent.to_json()])  # the data of the page's charts
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from time import time
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from .status_schema import Rates

WINDOW = 300
"""Seconds kept and shown."""

# Bucket b holds latencies around 2 ** (b / 8 - 30) seconds, from a nanosecond to two minutes. Each is 9 % wider than
# the previous one, so that a percentile is off by at most 4.5 %.
_PER_OCTAVE = 8
_LOWEST = 30
_SHIFT = _LOWEST * _PER_OCTAVE + 0.5
_BUCKETS = 37 * _PER_OCTAVE


class RecentDocument(TypedDict):
    """The counts of one worker, for the other workers.

    Attributes:
        seconds: integers separated by spaces. For each second: Unix time, errors, rows, calls, rows of these calls,
            number of buckets, index of the first bucket, requests in each bucket. A string, because workers publish it
            every second and a JSON list of this length takes many times longer.
    """

    seconds: str


class Recent:
    """Counts the traffic of one worker. Use it only from the event loop's thread."""

    __slots__ = ("_called_rows", "_calls", "_ends", "_errors", "_latency", "_past", "_rows", "_second")

    def __init__(self) -> None:
        self._past: list[tuple[int, str] | None] = [None] * WINDOW
        self._begin(time())

    def record(self, seconds: float, rows: int, error: bool) -> None:
        """Count one request that took `seconds`."""
        now = time()
        if now >= self._ends:
            self._next_second(now)
        try:
            self._latency[int(log2(seconds) * _PER_OCTAVE + _SHIFT)] += 1
        except (ValueError, IndexError):  # zero, or longer than the last bucket
            self._latency[0 if seconds < 1 else -1] += 1
        self._rows += rows
        if error:
            self._errors += 1

    def called(self, rows: int) -> None:
        """Count one call of the model with `rows` rows."""
        now = time()
        if now >= self._ends:
            self._next_second(now)
        self._calls += 1
        self._called_rows += rows

    def to_json(self) -> RecentDocument:
        """Return the counts of the last minutes."""
        now = time()
        # If the clock was set back, start there and leave out the seconds that now lie in the future.
        if not self._second <= now < self._ends:
            self._next_second(now)
        parts = [past[1] for past in self._past if past is not None and now - WINDOW - 1 < past[0] < self._second]
        if current := self._current():
            parts.append(current[1])
        return {"seconds": " ".join(parts)}

    def _begin(self, now: float) -> None:
        self._second = int(now)
        self._ends = self._second + 1.0
        self._errors = self._rows = self._calls = self._called_rows = 0
        self._latency = [0] * _BUCKETS

    def _next_second(self, now: float) -> None:
        """Store the finished second and start the one of `now`."""
        self._past[self._second % WINDOW] = self._current()
        self._begin(now)

    def _current(self) -> tuple[int, str] | None:
        used = [bucket for bucket, count in enumerate(self._latency) if count]
        if not used and not self._calls:
            return None
        first, end = (used[0], used[-1] + 1) if used else (0, 0)
        counts = (self._second, self._errors, self._rows, self._calls, self._called_rows, end - first, first)
        return self._second, " ".join(map(str, (*counts, *self._latency[first:end])))


def merge_rates(documents: Sequence[RecentDocument], *, now: float | None = None) -> Rates:
    """Return the rates over all workers for the last `WINDOW` complete seconds.

    With several workers the last complete second is left out: workers publish once a second, so it may be missing.

    Args:
        documents: `Recent.to_json` of each worker.
        now: Unix time; None uses the clock.
    """
    end = int(time() if now is None else now) - (len(documents) > 1)
    start = end - WINDOW
    errors, rows, calls, called_rows = ([0] * WINDOW for _ in range(4))
    latency = np.zeros(WINDOW * _BUCKETS, np.int64)
    for document in documents:
        numbers = np.fromstring(document["seconds"], np.int64, sep=" ")
        at = 0
        while at < len(numbers):
            second, failed, read, called, called_with, buckets, first = numbers[at : at + 7].tolist()
            at += 7
            if start <= second < end:
                index = second - start
                errors[index] += failed
                rows[index] += read
                calls[index] += called
                called_rows[index] += called_with
                first += index * _BUCKETS
                latency[first : first + buckets] += numbers[at : at + buckets]
            at += buckets
    cumulative = latency.reshape(WINDOW, _BUCKETS).cumsum(axis=1)
    return {
        "seconds": list(range(start, end)),
        "requests": cumulative[:, -1].tolist(),
        "errors": errors,
        "p50_ms": _percentiles(cumulative, 0.50),
        "p99_ms": _percentiles(cumulative, 0.99),
        "rows": rows,
        "batch_rows": [round(r / c, 2) if c else None for r, c in zip(called_rows, calls, strict=True)],
    }


def _percentiles(cumulative: NDArray[Any], share: float) -> list[float | None]:
    """Return the `share` quantile of each second's latencies in milliseconds; None without requests."""
    requests = cumulative[:, -1]
    buckets = (cumulative >= np.ceil(share * requests)[:, None]).argmax(axis=1)
    return [
        float(f"{1000 * 2.0 ** (int(bucket) / _PER_OCTAVE - _LOWEST):.3g}") if count else None
        for bucket, count in zip(buckets, requests, strict=True)
    ]
