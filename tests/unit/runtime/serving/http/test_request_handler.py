"""One request and its answer, at the level of ASGI: limits, refusals, ids, and what is counted."""

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
from tidemill.runtime.serving.http.errors import Problem
from tidemill.runtime.serving.http.keys import Keys
from tidemill.runtime.serving.http.request_handler import Call, Exchange, Watch
from tidemill.runtime.serving.protocols.base import Encoded
from tidemill.runtime.serving.settings import LimitSettings

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Client:
    """Asks an Exchange as a server would; notes what it was told to count."""

    def __init__(self, work: Callable[[Call, bytes], Awaitable[Encoded]], **limits: Any) -> None:
        idle: Any = SimpleNamespace(waiting_rows=0, expected_wait=0.0)
        settings = LimitSettings(**{"body_bytes": 100, **limits})
        self.admission = Admission(Keys("token"), settings, idle)
        self.watch = Watch()
        self.finished: list[tuple[str, int, int]] = []
        self.calls: list[Call] = []
        self._exchange = Exchange(work, self.admission, settings, self.watch, self._note)

    def _note(self, call: Call, status: int, seconds: float) -> None:
        assert seconds >= 0
        self.calls.append(call)
        self.finished.append((call.version, status, call.rows))

    async def ask(self, *parts: bytes | None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Send `parts`; None is a client which sends no more and stays, or which leaves where it is the last."""
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
        await self._exchange({"path": "/invocations", "headers": raw}, receive, send)
        assert self.admission.requests == 0, "a request which is over is still counted as under way"
        if not sent:
            return 0, {}, b""
        start, body = sent
        told = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
        assert int(told["content-length"]) == len(body["body"])
        return start["status"], told, body["body"]


async def echo(call: Call, body: bytes) -> Encoded:
    call.version, call.rows = "3", 1
    return Encoded(body, "text/plain", {"X-More": "yes"})


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
        assert "traceparent" not in headers, "one which is not valid is as good as none"

    run(work())


def test_refusals_are_problem_documents_and_are_counted() -> None:
    async def work() -> None:
        client = Client(echo)
        cases: list[tuple[int, tuple[bytes | None, ...], dict[str, str]]] = [
            (401, (b"",), {"authorization": "Bearer wrong"}),
            (400, (b"",), {"x_request_id": "x" * 129}),
            (400, (b"",), {"x_request_id": "caf\u00e9"}),
            (413, (b"x" * 101,), {}),
            (413, (b"x" * 60, b"x" * 60, b"x"), {}),
            (413, (*[b"x" * 90] * 10,), {}),
            (413, (gzip.compress(b"x" * 1000),), {"content_encoding": "gzip"}),
            (400, (b"no gzip",), {"content_encoding": "gzip"}),
            (415, (b"",), {"content_encoding": "br"}),
        ]
        for status, parts, headers in cases:
            assert problem(await client.ask(*parts, **headers))["status"] == status
        assert [status for _, status, _ in client.finished] == [status for status, _, _ in cases]
        assert (await client.ask(gzip.compress(b"x" * 90), content_encoding="gzip"))[2] == b"x" * 90

    run(work())


def test_a_client_which_leaves_is_told_nothing() -> None:
    async def work() -> None:
        client = Client(echo)
        assert await client.ask(b"he", None) == (0, {}, b"")
        assert client.finished == [("", 499, 0)]

    run(work())


def test_a_body_which_does_not_come_and_an_answer_which_does_not_are_ended() -> None:
    async def work() -> None:
        async def stuck(call: Call, _: bytes) -> Encoded:
            call.version = "3"
            await asyncio.Event().wait()
            raise AssertionError("nothing comes")

        for parts, status in (((b"he", None, b"llo"), 408), ((b"hello",), 503)):
            client = Client(stuck, body_seconds=0.01, answer_seconds=0.01)
            asking = asyncio.create_task(client.ask(*parts))
            while not asking.done():
                await asyncio.sleep(0.02)
                client.watch.look()
            assert problem(await asking)["status"] == status

    run(work())


def test_a_request_which_is_cancelled_from_outside_stays_cancelled() -> None:
    async def work() -> None:
        async def stuck(_: Call, __: bytes) -> Encoded:
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


def test_whatever_the_work_raises_is_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async def broken(_: Call, __: bytes) -> Encoded:
            raise ZeroDivisionError(" ".join(("secret", "detail")))

        async def refusing(_: Call, __: bytes) -> Encoded:
            raise Problem(503, "busy", headers={"Retry-After": "1"})

        answer = await Client(broken).ask(b"")
        assert problem(answer)["status"] == 500
        assert b"secret detail" not in answer[2]
        [record] = caplog.records
        assert "secret detail" not in JsonFormatter().format(record), "it may hold the features of the request"
        assert '"error": "ZeroDivisionError"' in JsonFormatter().format(record)
        assert "in broken" in record.where
        status, headers, _ = await Client(refusing).ask(b"")
        assert (status, headers["retry-after"]) == (503, "1")

    run(work())
