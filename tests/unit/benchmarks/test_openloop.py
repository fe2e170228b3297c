"""The generator of open-loop load counts from the scheduled time, whatever the server does."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from tests.benchmarks.serving.openloop import fixed, poisson, run
from tests.support.ports import free_ports

OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"


def request(body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


REQUESTS = [request(b"number %d" % one) for one in range(7)]


@contextmanager
def server(answer: Callable[[int, bytes], bytes | None]) -> Iterator[tuple[str, int]]:
    """Serve with a thread for each connection: `answer` gets the request's number and body; None hangs up."""
    listening = socket.create_server(("127.0.0.1", 0))
    lock, seen = threading.Lock(), 0

    def serve(connection: socket.socket) -> None:
        nonlocal seen
        with connection, connection.makefile("rb") as file:
            while True:
                size = 0
                while line := file.readline().strip():
                    key, _, value = line.partition(b": ")
                    size = int(value) if key == b"Content-Length" else size
                if not size:
                    return
                body = file.read(size)
                with lock:
                    number, seen = seen, seen + 1
                said = answer(number, body)
                if said is None:
                    return
                connection.sendall(said)
                if b"Connection: close" in said:
                    return

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield listening.getsockname()
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(30)


def echo(_: int, body: bytes) -> bytes:
    return OK % (len(body), body)


def test_a_fixed_schedule_has_equal_gaps() -> None:
    times = fixed(200, 0.5)
    assert len(times) == 100
    assert times[0] == 0
    assert np.diff(times) == pytest.approx(1 / 200)


@pytest.mark.parametrize("seed", range(5))
def test_a_poisson_schedule_has_exponential_gaps(seed: int) -> None:
    times = poisson(1_000, 20, seed)
    gaps = np.diff(times)
    # Five standard deviations of each: of the count, of the mean gap, and of its deviation, which equals it.
    assert len(times) == pytest.approx(20_000, abs=5 * 20_000**0.5)
    assert (gaps > 0).all()
    assert times[-1] < 20
    assert gaps.mean() == pytest.approx(1e-3, rel=5 / len(gaps) ** 0.5)
    assert gaps.std() == pytest.approx(1e-3, rel=5 * 2 / len(gaps) ** 0.5)
    assert (times == poisson(1_000, 20, seed)).all()
    assert times[0] != poisson(1_000, 20, seed + 1)[0]


def test_each_request_gets_its_own_answer() -> None:
    with server(echo) as address:
        result = run(address, REQUESTS, fixed(2_000, 0.1), connections=16, keep=True)
    assert result.count() == {200: 200}
    assert result.bodies == [b"number %d" % (one % 7) for one in range(200)]
    assert (result.sent >= result.scheduled).all()
    assert (result.answered >= result.sent).all()
    assert result.latency.tolist() == (result.answered - result.scheduled).tolist()


def test_a_stall_counts_for_all_who_wait_behind_it() -> None:
    stall = 0.5

    def answer(number: int, body: bytes) -> bytes:
        if number == 0:
            time.sleep(stall)
        return echo(number, body)

    times = fixed(100, 0.2)
    with server(answer) as address:
        result = run(address, REQUESTS, times, connections=1)
    assert result.count() == {200: 20}
    # The last one's time came 0.2 s after the first one's, and its answer after that one's, which took 0.5 s.
    assert (result.latency >= stall - times).all()
    assert result.percentile(0) >= 1e3 * (stall - 0.2)


def test_a_connection_which_breaks_costs_one_answer() -> None:
    with server(lambda number, body: None if number == 5 else echo(number, body)) as address:
        result = run(address, REQUESTS, fixed(500, 0.1), connections=1)
    assert result.count() == {0: 1, 200: 49}
    lost = int(np.argmin(result.good))
    assert lost == 5
    assert np.isinf(result.latency[lost])
    assert np.isinf(result.percentile(100))
    assert np.isfinite(result.percentile(90))


def test_a_server_which_closes_each_connection_is_asked_on_others() -> None:
    closing = b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    with server(lambda number, body: closing) as address:
        result = run(address, REQUESTS, fixed(500, 0.1), connections=4)
    assert result.count() == {503: 50}
    assert not result.good.any()


def test_answers_which_come_in_pieces_are_put_together() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"
    with server(lambda number, body: chunked) as address:
        result = run(address, REQUESTS, fixed(500, 0.05), connections=2, keep=True)
    assert set(result.bodies) == {b"abcde"}


def test_large_bodies_leave_whole() -> None:
    large = [request(b"%d" % one * 3_000_000) for one in range(3)]
    with server(lambda number, body: OK % (len(b"%d" % len(body)), b"%d" % len(body))) as address:
        result = run(address, large, fixed(100, 0.06), connections=3, keep=True, patience=60)
    assert result.count() == {200: 6}
    assert set(result.bodies) == {b"3000000"}


def test_who_is_not_there_gives_no_answer() -> None:
    (port,) = free_ports(1)
    result = run(("127.0.0.1", port), REQUESTS, fixed(500, 0.02), connections=4, patience=5)
    assert result.count() == {0: 10}


def test_who_never_answers_is_not_waited_for_for_ever() -> None:
    over = threading.Event()

    def answer(number: int, body: bytes) -> bytes:
        if number == 3:
            over.wait(60)
        return echo(number, body)

    with server(answer) as address:
        result = run(address, REQUESTS, fixed(500, 0.02), connections=4, patience=0.5)
        over.set()
    assert result.count() == {0: 1, 200: 9}
