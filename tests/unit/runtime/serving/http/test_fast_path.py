"""A request of a hot route on its connection: limits, times, and clients which leave, without a server around it."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from tidemill.runtime.serving.http.admission import Admission
from tidemill.runtime.serving.http.errors import Problem
from tidemill.runtime.serving.http.fast_path import Straight
from tidemill.runtime.serving.http.keys import Keys
from tidemill.runtime.serving.http.request_handler import Call, Done, Exchange, Watch
from tidemill.runtime.serving.inference.prediction import LARGE_BODY
from tidemill.runtime.serving.protocols.base import Encoded
from tidemill.runtime.serving.settings import LimitSettings
from uvicorn.protocols.http.flow_control import FlowControl

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Connection:
    """What a request knows of its connection; notes what is sent."""

    def __init__(self, begin: Callable[[Call, bytes, Done], None] | None, work: Any = None, **limits: Any) -> None:
        idle: Any = SimpleNamespace(waiting_rows=0, expected_wait=0.0)
        settings = LimitSettings(**{"body_bytes": 100, **limits})
        self.loop = asyncio.get_running_loop()
        self.flow = FlowControl(asyncio.Transport())
        self.tasks: set[asyncio.Task[Any]] = set()
        self.sent: list[tuple[bytes, bool]] = []
        self.finished: list[int] = []
        self.watch = Watch()
        self.admission = Admission(Keys("token"), settings, idle)
        self._exchange = Exchange(
            work, self.admission, settings, self.watch, lambda _, status, __: self.finished.append(status), begin=begin
        )

    def send(self, answer: bytes, *, last: bool) -> None:
        self.sent.append((answer, last))

    def ask(self, **headers: bytes) -> Straight:
        given = {b"authorization": b"Bearer token", **{name.encode(): value for name, value in headers.items()}}
        made = Straight(self, self._exchange, "/invocations", given, keep_alive=True)
        made.begin()
        return made

    def told(self) -> tuple[int, bytes, bytes, bool]:
        """Return status, head and body of the one answer, and whether the connection ends with it."""
        [(answer, last)] = self.sent
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"\r\ncontent-length: %d\r\n" % len(body) in head + b"\r\n"
        assert last == (b"\r\nconnection: close" in head)
        assert self.finished == [int(head[9:12])]
        assert self.admission.requests == 0, "a request which is over is still counted as under way"
        assert not self.watch.others
        return int(head[9:12]), head, body, last


def echo(call: Call, body: bytes, done: Done) -> None:
    call.version, call.rows = "3", 1
    done(Encoded(body, "text/plain"))


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def inside() -> None:
        async with asyncio.timeout(30):
            await work()

    asyncio.run(inside())


def test_the_answer_is_one_write() -> None:
    async def work() -> None:
        connection = Connection(echo)
        asked = connection.ask()
        asked.feed(b"he")
        asked.feed(b"llo")
        assert not connection.sent
        asked.end()
        status, head, body, last = connection.told()
        assert (status, body, last) == (200, b"hello", False)
        assert head.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n")
        assert b"\r\nx-tidemill-model-version: 3" in head
        assert asked.response_complete

    run(work)


def test_headers_of_its_own_the_trace_and_the_end_of_the_connection_are_told() -> None:
    async def work() -> None:
        connection = Connection(lambda _, body, done: done(Encoded(body, headers={"X-More": "a\r\nb"})))
        asked = connection.ask(traceparent=TRACE)
        asked.keep_alive = False
        asked.end()
        _, head, _, last = connection.told()
        assert last
        assert b"\r\nx-more: ab" in head, "whatever a value holds, it is one line"
        assert b"\r\ntraceparent: " + TRACE[:36] in head

    run(work)


def test_what_is_refused_at_its_head_is_told_at_once() -> None:
    async def work() -> None:
        connection = Connection(echo)
        asked = connection.ask(authorization=b"Bearer wrong")
        asked.feed(b"x")
        asked.end()
        assert connection.told()[0] == 401

    run(work)


def test_a_body_which_is_too_large_is_read_for_a_while() -> None:
    async def work() -> None:
        connection = Connection(echo)
        asked = connection.ask()
        for _ in range(4):
            asked.feed(b"x" * 100)
        assert not connection.sent
        asked.feed(b"x")
        assert connection.told()[::3] == (413, True)
        asked.end()
        assert len(connection.sent) == 1
        connection = Connection(echo)
        asked = connection.ask()
        asked.feed(b"x" * 101)
        asked.end()
        assert connection.told()[::3] == (413, True)

    run(work)


def test_what_takes_too_long_is_ended_and_answered_once() -> None:
    async def work() -> None:
        connection = Connection(echo)
        asked = connection.ask()
        connection.watch.look()
        assert not connection.sent
        asked.look(math.inf)
        asked.end()
        assert connection.told()[::3] == (408, True)

        kept: list[tuple[Call, Done]] = []
        connection = Connection(lambda call, _, done: kept.append((call, done)))
        connection.ask().end()
        connection.watch.end()
        [(call, done)] = kept
        assert call.over, "who works on it still must know"
        done(Encoded(b"too late"))
        assert connection.told()[::3] == (503, False)

    run(work)


def test_large_bodies_and_what_has_no_short_way_run_as_a_task() -> None:
    async def work() -> None:
        async def echoing(_: Call, body: bytes) -> Encoded:
            await asyncio.sleep(0)
            return Encoded(body)

        async def refusing(_: Call, __: bytes) -> Encoded:
            raise Problem(503, "busy")

        async def stuck(_: Call, __: bytes) -> Encoded:
            await asyncio.Event().wait()
            raise AssertionError("nothing comes")

        for begin, answering, size, status in (
            (echo, echoing, LARGE_BODY, 200), (None, echoing, 5, 200), (None, refusing, 5, 503)
        ):  # fmt: skip
            connection = Connection(begin, answering, body_bytes=1_000_000)
            asked = connection.ask()
            asked.feed(b"x" * size)
            asked.end()
            [task] = connection.tasks
            await task
            assert connection.told()[0] == status
        connection = Connection(None, stuck)
        connection.ask().end()
        [task] = connection.tasks
        await asyncio.sleep(0)
        connection.watch.end()
        await asyncio.wait([task])
        assert task.cancelled()
        assert connection.told()[0] == 503

    run(work)


def test_a_client_which_leaves_is_told_nothing() -> None:
    async def work() -> None:
        connection = Connection(echo)
        asked = connection.ask()
        asked.leave()
        asked.end()
        assert (connection.sent, connection.finished, connection.admission.requests) == ([], [499], 0)

        kept: list[Done] = []
        connection = Connection(lambda _, __, done: kept.append(done))
        asked = connection.ask()
        asked.end()
        asked.leave()
        kept[0](Encoded(b"hello"))
        assert (connection.sent, connection.finished) == ([], [200]), "its answer was made, and is counted"

    run(work)


def test_a_client_which_does_not_read_waits_for_itself() -> None:
    async def work() -> None:
        connection = Connection(echo)
        connection.flow.pause_writing()
        asked = connection.ask()
        asked.end()
        await asyncio.sleep(0.01)
        assert not connection.sent
        assert not asked.response_complete, "what follows on the connection waits too"
        connection.flow.resume_writing()
        await asyncio.sleep(0.01)
        assert connection.told()[0] == 200

    run(work)


def test_whatever_the_work_raises_is_an_answer() -> None:
    async def work() -> None:
        def broken(_: Call, __: bytes, ___: Done) -> None:
            raise ZeroDivisionError("secret detail")

        connection = Connection(broken)
        connection.ask().end()
        status, _, body, _ = connection.told()
        assert status == 500
        assert json.loads(body)["detail"] == "the model failed on this request"

    run(work)
