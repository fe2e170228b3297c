"""An open-loop generator of HTTP load: requests leave when their time has come, whatever became of those before.

A closed loop (wrk) waits for an answer before it asks again, so a server which stalls is asked less and its stall is
seen once. Here each request has a time of its own, made beforehand, and its latency counts from that time: what waited
in front of a busy server, or for a free connection, counts in full (no coordinated omission).

One thread, one epoll, keep-alive connections which are opened as they are needed. `late` tells how long after their
time requests really left; where that is large, the generator was the bottleneck and the figures are not the server's.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httptools
import numpy as np
from numpy.typing import NDArray

__all__ = ["Generator", "Result", "fixed", "poisson", "run"]

NO_ANSWER = 0
"""Status of a request whose connection broke, or which was still unanswered at the end."""

_READ = select.EPOLLIN
_BOTH = select.EPOLLIN | select.EPOLLOUT


def fixed(rate: float, seconds: float) -> NDArray[np.float64]:
    """Return the send times of `rate` requests a second at equal distances, in seconds from the start."""
    return np.arange(round(rate * seconds)) / rate


def poisson(rate: float, seconds: float, seed: int = 0) -> NDArray[np.float64]:
    """Return the send times of independent clients, `rate` a second on average: gaps are exponential."""
    random = np.random.default_rng(seed)
    expected = rate * seconds
    # Ten standard deviations more than are expected, so that the last one lies beyond the end.
    gaps = random.exponential(1 / rate, int(expected + 10 * expected**0.5 + 10))
    times = np.cumsum(gaps)
    return times[times < seconds]


@dataclass
class Result:
    """What became of the requests of one run, one entry a request, in the order of the schedule.

    Attributes:
        scheduled: when each was to leave, seconds from the start.
        sent: when it left; NaN where it never did.
        answered: when its answer was complete; NaN where none came.
        status: HTTP status; 0 where no answer came.
        bodies: the answers' bodies, where they were to be kept.
    """

    scheduled: NDArray[np.float64]
    sent: NDArray[np.float64]
    answered: NDArray[np.float64]
    status: NDArray[np.int16]
    bodies: list[bytes] = field(default_factory=list[bytes])

    @property
    def latency(self) -> NDArray[np.float64]:
        """Seconds from the scheduled time to the answer; endless where none came."""
        return np.where(np.isnan(self.answered), np.inf, self.answered - self.scheduled)

    @property
    def served_in(self) -> NDArray[np.float64]:
        """Seconds from when a request really left to its answer; endless where none came."""
        return np.where(np.isnan(self.answered), np.inf, self.answered - self.sent)

    @property
    def good(self) -> NDArray[np.bool_]:
        """Which requests were answered with 2xx."""
        return (self.status >= 200) & (self.status < 300)

    def percentile(self, share: float, which: NDArray[np.bool_] | None = None) -> float:
        """Return the latency in ms which `share` percent of the requests (of `which`) do not exceed."""
        latency = self.latency if which is None else self.latency[which]
        # "higher" gives a latency which really occurred, and never NaN from two endless ones.
        return float(np.percentile(latency, share, method="higher") * 1e3) if len(latency) else float("nan")

    def late(self, share: float = 99) -> float:
        """Return how many ms after its time a request left, for all but the latest `100 - share` percent."""
        late = (self.sent - self.scheduled)[~np.isnan(self.sent)]
        return float(np.percentile(late, share, method="higher") * 1e3) if len(late) else float("nan")

    def count(self) -> dict[int, int]:
        """Return status -> number of requests."""
        values, counts = np.unique(self.status, return_counts=True)
        return {int(value): int(number) for value, number in zip(values, counts, strict=True)}


class _Connection:
    """One keep-alive connection: at most one request is under way on it."""

    __slots__ = ("closing", "fileno", "index", "out", "parser", "parts", "socket", "status", "whole")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fileno = self.socket.fileno()
        self.index = -1
        self.out: bytes | memoryview = b""
        self.whole = False
        self.closing = False
        self.status = 0
        self.parts: list[bytes] = []
        self.parser = httptools.HttpResponseParser(self)
        code = self.socket.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            self.socket.close()
            raise OSError(code, "cannot connect")

    # Called by httptools.

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        self.closing = not self.parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        self.whole = True


class Generator:
    """Sends `requests` in turn at the times of a schedule, and notes what comes back.

    Args:
        address: host and port of the server.
        requests: whole HTTP/1.1 requests, head and body.
        connections: opened at most; a request whose time has come waits while all are busy, and its clock runs.
        keep: keep the bodies of the answers.
    """

    def __init__(
        self, address: tuple[str, int], requests: Sequence[bytes], *, connections: int = 512, keep: bool = False
    ) -> None:
        self._address = address
        self._requests = requests
        self._most = connections
        self._keep = keep

    def run(self, schedule: Sequence[float] | NDArray[np.float64], *, patience: float = 10.0) -> Result:
        """Send one request for each time of `schedule` (ascending), wait for the answers, and return what came.

        Args:
            schedule: send times in seconds from the start.
            patience: seconds after the last send time in which answers are still waited for.
        """
        times = [float(one) for one in schedule]
        number = len(times)
        self._result = Result(
            np.asarray(times),
            np.full(number, np.nan),
            np.full(number, np.nan),
            np.zeros(number, np.int16),
            [b""] * number if self._keep else [],
        )
        self._open: dict[int, _Connection] = {}
        self._idle: deque[_Connection] = deque()
        self._waiting: deque[int] = deque()
        self._left = number
        self._epoll = select.epoll()
        enabled = gc.isenabled()
        # A collection in the middle of a run would count as the server's latency.
        gc.disable()
        try:
            self._loop(times, patience)
        finally:
            if enabled:
                gc.enable()
            for connection in self._open.values():
                connection.socket.close()
            self._epoll.close()
        return self._result

    def _loop(self, times: list[float], patience: float) -> None:
        clock, poll, waiting = time.perf_counter, self._epoll.poll, self._waiting
        number, following = len(times), 0
        self._start = start = clock()
        end = (times[-1] if times else 0.0) + patience
        # select waits with the kernel's own precision, epoll only in whole milliseconds; an epoll can be selected.
        handle = [self._epoll.fileno()]
        while self._left:
            now = clock() - start
            while following < number and times[following] <= now:
                waiting.append(following)
                following += 1
            while waiting and self._send(waiting[0]):
                waiting.popleft()
            if now > end:
                return
            pause = times[following] - (clock() - start) if following < number else end - now
            if select.select(handle, (), (), max(pause, 0.0))[0]:
                for fileno, event in poll(0):
                    connection = self._open[fileno]
                    if event & select.EPOLLOUT:
                        self._write(connection)
                    if event & ~select.EPOLLOUT and fileno in self._open:
                        self._read(connection)

    def _send(self, index: int) -> bool:
        """Send request `index` on a free connection; return False where there is none."""
        if self._idle:
            # The one which was idle longest: none rests until the server closes it.
            connection = self._idle.popleft()
            fresh = False
        elif len(self._open) < self._most:
            try:
                connection = _Connection(self._address)
            except OSError:
                self._left -= 1
                return True
            self._open[connection.fileno] = connection
            fresh = True
        else:
            return False
        connection.index = index
        connection.out = self._requests[index % len(self._requests)]
        self._result.sent[index] = time.perf_counter() - self._start
        if fresh:
            self._epoll.register(connection.fileno, _BOTH)
        else:
            self._write(connection, armed=False)
        return True

    def _write(self, connection: _Connection, *, armed: bool = True) -> None:
        out = connection.out
        if out:
            try:
                done = connection.socket.send(out)
            except BlockingIOError:
                done = 0
            except OSError:
                self._drop(connection)
                return
            connection.out = b"" if done == len(out) else memoryview(out)[done:]
        if bool(connection.out) != armed:
            self._epoll.modify(connection.fileno, _BOTH if connection.out else _READ)

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(262_144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return
        try:
            connection.parser.feed_data(data)
        except httptools.HttpParserError:
            self._drop(connection)
            return
        if connection.whole:
            self._answered(connection)

    def _answered(self, connection: _Connection) -> None:
        index, result = connection.index, self._result
        if index < 0:
            # An answer which nobody asked for, such as 408 on an idle connection.
            self._drop(connection)
            return
        result.answered[index] = time.perf_counter() - self._start
        result.status[index] = connection.status
        if self._keep:
            result.bodies[index] = b"".join(connection.parts)
        self._left -= 1
        connection.index = -1
        connection.whole = False
        connection.parts.clear()
        if connection.closing or connection.out:
            self._drop(connection)
        else:
            self._idle.append(connection)

    def _drop(self, connection: _Connection) -> None:
        """Forget a connection; a request under way on it has no answer."""
        del self._open[connection.fileno]
        connection.socket.close()
        if connection.index >= 0:
            self._left -= 1
        else:
            with contextlib.suppress(ValueError):
                self._idle.remove(connection)


def run(
    address: tuple[str, int],
    requests: Sequence[bytes],
    schedule: Sequence[float] | NDArray[np.float64],
    **options: Any,
) -> Result:
    """Run a `Generator` once; `options` are its and `Generator.run`'s."""
    patience = options.pop("patience", 10.0)
    return Generator(address, requests, **options).run(schedule, patience=patience)
