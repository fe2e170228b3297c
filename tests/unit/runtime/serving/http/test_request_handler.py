"""The request handler as an ASGI application: limits, refusals, ids and counts."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tidemill.runtime.common.service import JsonFormatter
from tidemill.runtime.serving.http.admission import Admission
from tidemill.runtime.serving.http.deadlines import Deadlines
from tidemill.runtime.serving.http.errors import Problem
from tidemill.runtime.serving.http.keys import Keys
from tidemill.runtime.serving.http.request_context import RequestContext
from tidemill.runtime.serving.http.request_handler import RequestHandler
from tidemill.runtime.serving.protocols.base import EncodedResponse
from tidemill.runtime.serving.settings import LimitSettings

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Client:
    """Calls a RequestHandler like a server; records the counted requests."""

    def __init__(self, work: Callable[[RequestContext, bytes], Awaitable[EncodedResponse]], **limits: Any) -> None:
        idle: Any = SimpleNamespace(waiting_rows=0, expected_wait=0.0)
        settings = LimitSettings(**{"body_bytes": 100, **limits})
        self.admission = Admission(Keys("token"), settings, idle)
        self.deadlines = Deadlines()
        self.finished: list[tuple[str, int, int]] = []
        self.calls: list[RequestContext] = []
        self._handler = RequestHandler(work, self.admission, settings, self.deadlines, self._note)

    def _note(self, call: RequestContext, status: int, seconds: float) -> None:
        assert seconds >= 0
        self.calls.append(call)
        self.finished.append((call.version, status, call.rows))

    async def ask(self, *parts: bytes | None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Send `parts`. None is a client that stops sending; as the last part, a client that leaves."""
        left = list(parts)
        never = asyncio.Event()

        async def receive() -> dict[str, Any]:
            part = left.pop(0)
            if part is None:
                if not left:
                    return {"type": "http.disconnect"}
                await never.wait()
            return {"type": "http.request", "body": part, "more_body": bool(left)}

        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(message)

        given = {"authorization": "Bearer token", **{name.replace("_", "-"): value for name, value in headers.items()}}
        raw = [(name.encode(), value.encode("latin-1")) for name, value in given.items()]
        await self._handler({"path": "/invocations", "headers": raw}, receive, send)
        assert self.admission.requests == 0, "a finished request is still counted as in flight"
        if not sent:
            return 0, {}, b""
        start, body = sent
        told = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
        assert int(told["content-length"]) == len(body["body"])
        return start["status"], told, body["body"]


async def echo(call: RequestContext, body: bytes) -> EncodedResponse:
    call.version, call.rows = "3", 1
    return EncodedResponse(body, "text/plain", {"X-More": "yes"})


def run(work: Awaitable[None]) -> None:
    async def inside() -> None:
        async with asyncio.timeout(30):
            await work

    asyncio.run(inside())


def problem(answer: tuple[int, dict[str, str], bytes]) -> dict[str, Any]:
    status, headers, body = answer
    document = json.loads(body)
    assert headers["content-type"] == "application/problem+json"
    assert document["status"] == status
    assert document["request_id"] == headers["x-request-id"]
    return document


def test_an_answer_names_version_request_and_trace() -> None:
    async def work() -> None:
        client = Client(echo)
        status, headers, body = await client.ask(b"he", b"llo", x_request_id="mine", traceparent=TRACE)
        assert (status, body, headers["x-more"]) == (200, b"hello", "yes")
        assert headers["x-tidemill-model-version"] == "3"
        assert headers["traceparent"][:36] == TRACE[:36]
        assert headers["traceparent"][36:] != TRACE[36:]
        assert len(headers["traceparent"]) == len(TRACE)
        assert client.calls[0].client_request_id == "mine"
        assert client.finished == [("3", 200, 1)]
        _, headers, _ = await client.ask(b"", traceparent="00-" + "0" * 32 + TRACE[35:])
        assert "traceparent" not in headers, "an invalid header is ignored"

    run(work())


def test_refusals_are_problem_documents_and_are_counted() -> None:
    async def work() -> None:
        client = Client(echo)
        too_large = (
            "; the limit is 100; raise serve.limits.body_bytes in the stack config, or --max-body of tidemill serve"
        )
        sizes = iter(("at least 101", "at least 121", "100000", "more than 100"))
        cases: list[tuple[int, tuple[bytes | None, ...], dict[str, str]]] = [
            (401, (b"",), {"authorization": "Bearer wrong"}),
            (400, (b"",), {"x_request_id": "x" * 129}),
            (400, (b"",), {"x_request_id": "caf\u00e9"}),
            (413, (b"x" * 101,), {}),
            (413, (b"x" * 60, b"x" * 60, b"x"), {}),
            (413, (*[b"x" * 90] * 10,), {"content-length": "100000"}),
            (413, (gzip.compress(b"x" * 1000),), {"content_encoding": "gzip"}),
            (400, (b"no gzip",), {"content_encoding": "gzip"}),
            (415, (b"",), {"content_encoding": "br"}),
        ]
        for status, parts, headers in cases:
            document = problem(await client.ask(*parts, **headers))
            assert document["status"] == status
            assert document["message"] == document["error"] == document["detail"]
            if status == 413:
                body = "decompressed body" if headers.get("content_encoding") else "body"
                assert document["detail"] == f"the {body} has {next(sizes)} bytes{too_large}"
        assert [status for _, status, _ in client.finished] == [status for status, _, _ in cases]
        assert (await client.ask(gzip.compress(b"x" * 90), content_encoding="gzip"))[2] == b"x" * 90

    run(work())


def test_a_client_that_leaves_gets_no_response() -> None:
    async def work() -> None:
        client = Client(echo)
        assert await client.ask(b"he", None) == (0, {}, b"")
        assert client.finished == [("", 499, 0)]

    run(work())


def test_late_bodies_and_late_answers_end() -> None:
    async def work() -> None:
        async def stuck(call: RequestContext, _: bytes) -> EncodedResponse:
            call.version = "3"
            await asyncio.Event().wait()
            raise AssertionError("nothing comes")

        for parts, status in (((b"he", None, b"llo"), 408), ((b"hello",), 503)):
            client = Client(stuck, body_seconds=0.01, answer_seconds=0.01)
            asking = asyncio.create_task(client.ask(*parts))
            while not asking.done():
                await asyncio.sleep(0.02)
                client.deadlines.check()
            assert problem(await asking)["status"] == status

    run(work())


def test_a_request_cancelled_from_outside_stays_cancelled() -> None:
    async def work() -> None:
        async def stuck(_: RequestContext, __: bytes) -> EncodedResponse:
            await asyncio.Event().wait()
            raise AssertionError("nothing comes")

        client = Client(stuck)
        asking = asyncio.create_task(client.ask(b""))
        await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert client.admission.requests == 0

    run(work())


def test_any_exception_becomes_a_response(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async def broken(_: RequestContext, __: bytes) -> EncodedResponse:
            raise ZeroDivisionError(" ".join(("secret", "detail")))

        async def refusing(_: RequestContext, __: bytes) -> EncodedResponse:
            raise Problem(503, "busy", headers={"Retry-After": "1"})

        answer = await Client(broken).ask(b"")
        assert problem(answer)["detail"] == "the model failed on this request (ZeroDivisionError)"
        assert b"secret detail" not in answer[2], "it may contain features of the request"
        [record] = caplog.records
        assert '"error": "ZeroDivisionError: secret detail"' in JsonFormatter().format(record)
        assert "in broken" in record.where
        status, headers, _ = await Client(refusing).ask(b"")
        assert (status, headers["retry-after"]) == (503, "1")

    run(work())
