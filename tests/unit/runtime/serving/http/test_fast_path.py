"""Requests on the fast path, without a server: limits, deadlines, and clients that leave."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from tidemill.runtime.serving.http.admission import Admission
from tidemill.runtime.serving.http.deadlines import Deadlines
from tidemill.runtime.serving.http.errors import Problem
from tidemill.runtime.serving.http.fast_path import FastPathRequest
from tidemill.runtime.serving.http.keys import Keys
from tidemill.runtime.serving.http.request_context import RequestContext
from tidemill.runtime.serving.http.request_handler import OnResult, RequestHandler, StartAnswer
from tidemill.runtime.serving.inference.prediction import LARGE_BODY
from tidemill.runtime.serving.protocols.base import EncodedResponse
from tidemill.runtime.serving.settings import LimitSettings
from uvicorn.protocols.http.flow_control import FlowControl

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Connection:
    """The connection of a request; records what is sent."""

    def __init__(self, begin: StartAnswer | None, work: Any = None, **limits: Any) -> None:
        idle: Any = SimpleNamespace(waiting_rows=0, expected_wait=0.0)
        settings = LimitSettings(**{"body_bytes": 100, **limits})
        self.loop = asyncio.get_running_loop()
        self.flow = FlowControl(asyncio.Transport())
        self.tasks: set[asyncio.Task[Any]] = set()
        self.sent: list[tuple[bytes, bool]] = []
        self.finished: list[int] = []
        self.deadlines = Deadlines()
        self.admission = Admission(Keys("token"), settings, idle)
        self._handler = RequestHandler(
            work,
            self.admission,
            settings,
            self.deadlines,
            lambda _, status, __: self.finished.append(status),
            start_answer=begin,
        )

    def send(self, answer: bytes, *, last: bool) -> None:
        self.sent.append((answer, last))

    def ask(self, **headers: bytes) -> FastPathRequest:
        given = {b"authorization": b"Bearer token", **{name.encode(): value for name, value in headers.items()}}
        made = FastPathRequest(self, self._handler, "/invocations", given, keep_alive=True)
        made.start()
        return made

    def response(self) -> tuple[int, bytes, bytes, bool]:
        """Return status, head and body of the only response, and whether the connection closes after it."""
        [(answer, last)] = self.sent
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"\r\ncontent-length: %d\r\n" % len(body) in head + b"\r\n"
        assert last == (b"\r\nconnection: close" in head)
        assert self.finished == [int(head[9:12])]
        assert self.admission.requests == 0, "a finished request is still counted as in flight"
        assert not self.deadlines.expiring
        return int(head[9:12]), head, body, last


def echo(call: RequestContext, body: bytes, done: OnResult) -> None:
    call.version, call.rows = "3", 1
    done(EncodedResponse(body, "text/plain"))


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
        asked.finish_body()
        status, head, body, last = connection.response()
        assert (status, body, last) == (200, b"hello", False)
        assert head.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n")
        assert b"\r\nx-tidemill-model-version: 3" in head
        assert asked.response_complete

    run(work)


def test_the_response_has_its_own_headers_the_trace_and_connection_close() -> None:
    async def work() -> None:
        connection = Connection(lambda _, body, done: done(EncodedResponse(body, headers={"X-More": "a\r\nb"})))
        asked = connection.ask(traceparent=TRACE)
        asked.keep_alive = False
        asked.finish_body()
        _, head, _, last = connection.response()
        assert last
        assert b"\r\nx-more: ab" in head, "a header value is always one line"
        assert b"\r\ntraceparent: " + TRACE[:36] in head

    run(work)


def test_a_refusal_at_the_head_is_sent_immediately() -> None:
    async def work() -> None:
        connection = Connection(echo)
        asked = connection.ask(authorization=b"Bearer wrong")
        asked.feed(b"x")
        asked.finish_body()
        assert connection.response()[0] == 401

    run(work)


def test_a_body_that_is_too_large_is_read_for_a_while() -> None:
    async def work() -> None:
        connection = Connection(echo)
        asked = connection.ask()
        for _ in range(4):
            asked.feed(b"x" * 100)
        assert not connection.sent
        asked.feed(b"x")
        assert connection.response()[::3] == (413, True)
        assert "at least 401 bytes" in json.loads(connection.response()[2])["detail"]
        asked.finish_body()
        assert len(connection.sent) == 1
        connection = Connection(echo)
        asked = connection.ask(**{"content-length": b"101"})
        asked.feed(b"x" * 101)
        asked.finish_body()
        assert connection.response()[::3] == (413, True)
        detail = json.loads(connection.response()[2])["detail"]
        assert detail.startswith("the body has 101 bytes; the limit is 100; raise serve.limits.body_bytes ")

    run(work)


def test_a_late_request_ends_and_is_answered_once() -> None:
    async def work() -> None:
        connection = Connection(echo)
        asked = connection.ask()
        connection.deadlines.check()
        assert not connection.sent
        asked.expire(math.inf)
        asked.finish_body()
        assert connection.response()[::3] == (408, True)

        kept: list[tuple[RequestContext, OnResult]] = []
        connection = Connection(lambda call, _, done: kept.append((call, done)))
        connection.ask().finish_body()
        connection.deadlines.expire_all()
        [(call, done)] = kept
        assert call.over, "work that still runs must see that the request is over"
        done(EncodedResponse(b"too late"))
        assert connection.response()[::3] == (503, False)

    run(work)


def test_large_bodies_and_routes_without_a_callback_run_as_a_task() -> None:
    async def work() -> None:
        async def echoing(_: RequestContext, body: bytes) -> EncodedResponse:
            await asyncio.sleep(0)
            return EncodedResponse(body)

        async def refusing(_: RequestContext, __: bytes) -> EncodedResponse:
            raise Problem(503, "busy")

        async def stuck(_: RequestContext, __: bytes) -> EncodedResponse:
            await asyncio.Event().wait()
            raise AssertionError("nothing comes")

        for begin, answering, size, status in (
            (echo, echoing, LARGE_BODY, 200), (None, echoing, 5, 200), (None, refusing, 5, 503)
        ):  # fmt: skip
            connection = Connection(begin, answering, body_bytes=1_000_000)
            asked = connection.ask()
            asked.feed(b"x" * size)
            asked.finish_body()
            [task] = connection.tasks
            await task
            assert connection.response()[0] == status
        connection = Connection(None, stuck)
        connection.ask().finish_body()
        [task] = connection.tasks
        await asyncio.sleep(0)
        connection.deadlines.expire_all()
        await asyncio.wait([task])
        assert task.cancelled()
        assert connection.response()[0] == 503

    run(work)


def test_a_client_that_leaves_gets_no_response() -> None:
    async def work() -> None:
        connection = Connection(echo)
        asked = connection.ask()
        asked.disconnect()
        asked.finish_body()
        assert (connection.sent, connection.finished, connection.admission.requests) == ([], [499], 0)

        kept: list[OnResult] = []
        connection = Connection(lambda _, __, done: kept.append(done))
        asked = connection.ask()
        asked.finish_body()
        asked.disconnect()
        kept[0](EncodedResponse(b"hello"))
        assert (connection.sent, connection.finished) == ([], [200]), "its answer was complete, and is counted"

    run(work)


def test_the_response_waits_until_the_client_reads() -> None:
    async def work() -> None:
        connection = Connection(echo)
        connection.flow.pause_writing()
        asked = connection.ask()
        asked.finish_body()
        await asyncio.sleep(0.01)
        assert not connection.sent
        assert not asked.response_complete, "later requests on the connection wait too"
        connection.flow.resume_writing()
        await asyncio.sleep(0.01)
        assert connection.response()[0] == 200

    run(work)


def test_any_exception_becomes_a_response() -> None:
    async def work() -> None:
        def broken(_: RequestContext, __: bytes, ___: OnResult) -> None:
            raise ZeroDivisionError("secret detail")

        connection = Connection(broken)
        connection.ask().finish_body()
        status, _, body, _ = connection.response()
        assert status == 500
        assert json.loads(body)["detail"] == "the model failed on this request (ZeroDivisionError)"

    run(work)
