"""The last minutes of a worker, second by second: counted on the hot path, merged over the workers, shown as rates.

recent = Recent()
recent.record(0.0021, 1, False)  # a request
recent.called(1)  # a call of the model
merged([recent.to_json()])  # what the page draws
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from time import time
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from .status_schema import Rates

__all__ = ["WINDOW", "Recent", "RecentDocument", "merged"]

WINDOW = 300
"""Seconds which are kept and shown."""

# Bucket b holds latencies around 2 ** (b / 8 - 30) seconds: from a nanosecond, which is all that clocks tell, to two
# minutes. Each is 9 % wider than the one before it, so that a percentile is wrong by 4.5 % at most.
_PER_OCTAVE = 8
_LOWEST = 30
_SHIFT = _LOWEST * _PER_OCTAVE + 0.5
_BUCKETS = 37 * _PER_OCTAVE


class RecentDocument(TypedDict):
    """What one worker tells the others.

    Attributes:
        seconds: whole numbers with spaces between them: for each second its Unix time, errors, rows, calls, rows of
            these calls, how many buckets follow, the first of them, and the requests in it, in the next one and so on.
            Text, since it is told every second: lists of so many numbers take many times as long as JSON.
    """

    seconds: str


class Recent:
    """Counts what one worker answers. All calls must come from one thread, the event loop's."""

    __slots__ = ("_called_rows", "_calls", "_ends", "_errors", "_latency", "_past", "_rows", "_second")

    def __init__(self) -> None:
        self._past: list[tuple[int, str] | None] = [None] * WINDOW
        self._begin(time())

    def record(self, seconds: float, rows: int, error: bool) -> None:
        """Count one request, which took `seconds`."""
        now = time()
        if now >= self._ends:
            self._turn(now)
        try:
            self._latency[int(log2(seconds) * _PER_OCTAVE + _SHIFT)] += 1
        except (ValueError, IndexError):  # no time at all, or longer than the last bucket
            self._latency[0 if seconds < 1 else -1] += 1
        self._rows += rows
        if error:
            self._errors += 1

    def called(self, rows: int) -> None:
        """Count one call of the model with `rows` rows, of one request or of several."""
        now = time()
        if now >= self._ends:
            self._turn(now)
        self._calls += 1
        self._called_rows += rows

    def to_json(self) -> RecentDocument:
        """Return what was counted in the last minutes."""
        now = time()
        # A clock which was set back begins anew there; what then seems to come from the future is not told.
        if not self._second <= now < self._ends:
            self._turn(now)
        told = [past[1] for past in self._past if past is not None and now - WINDOW - 1 < past[0] < self._second]
        if current := self._current():
            told.append(current[1])
        return {"seconds": " ".join(told)}

    def _begin(self, now: float) -> None:
        self._second = int(now)
        self._ends = self._second + 1.0
        self._errors = self._rows = self._calls = self._called_rows = 0
        self._latency = [0] * _BUCKETS

    def _turn(self, now: float) -> None:
        """Put the second which is over aside, and begin that of `now`."""
        self._past[self._second % WINDOW] = self._current()
        self._begin(now)

    def _current(self) -> tuple[int, str] | None:
        used = [bucket for bucket, count in enumerate(self._latency) if count]
        if not used and not self._calls:
            return None
        first, end = (used[0], used[-1] + 1) if used else (0, 0)
        counts = (self._second, self._errors, self._rows, self._calls, self._called_rows, end - first, first)
        return self._second, " ".join(map(str, (*counts, *self._latency[first:end])))


def merged(documents: Sequence[RecentDocument], *, now: float | None = None) -> Rates:
    """Return the rates over all workers, of the `WINDOW` seconds before the one under way.

    Where there are several, of those before the last one: workers tell the others once a second, so that of the last
    second a part may not be told yet.

    Args:
        documents: what `Recent.to_json` of each worker returned.
        now: Unix time; None takes the clock's.
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
    up_to = latency.reshape(WINDOW, _BUCKETS).cumsum(axis=1)
    return {
        "seconds": list(range(start, end)),
        "requests": up_to[:, -1].tolist(),
        "errors": errors,
        "p50_ms": _percentiles(up_to, 0.50),
        "p99_ms": _percentiles(up_to, 0.99),
        "rows": rows,
        "batch_rows": [round(r / c, 2) if c else None for r, c in zip(called_rows, calls, strict=True)],
    }


def _percentiles(up_to: NDArray[Any], share: float) -> list[float | None]:
    """Return the milliseconds which `share` of each second's requests did not exceed; None without requests."""
    requests = up_to[:, -1]
    buckets = (up_to >= np.ceil(share * requests)[:, None]).argmax(axis=1)
    return [
        float(f"{1000 * 2.0 ** (int(bucket) / _PER_OCTAVE - _LOWEST):.3g}") if count else None
        for bucket, count in zip(buckets, requests, strict=True)
    ]
