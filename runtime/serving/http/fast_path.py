"""A request of a hot route, from its head to its answer, on the connection itself.

uvicorn makes a scope, a task, and two or more messages of each request, which together cost more than the answer. The
usual requests of the hot routes go without them: the connection tells a `Straight` of the body as it comes, and the
whole answer is one write. What is unusual (pipelined behind another one, `Expect`, HTTP/1.0) goes uvicorn's way to the
same `Exchange`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Coroutine
from functools import lru_cache
from typing import Any, Final, Protocol

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from ...common.ids import uuid7_text
from ..inference.prediction import LARGE_BODY
from ..protocols.base import EncodedResponse
from .request_handler import READ_ON, SLOW_ANSWER, SLOW_BODY, Call, Exchange, answer_of, traceparent_of

__all__ = ["Line", "Straight"]

_STATUS = {status: line.decode("ascii") for status, line in STATUS_LINE.items()}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Line(Protocol):
    """What a request must know of its connection.

    Attributes:
        loop: its event loop.
        flow: whether what was written is taken.
        tasks: those of the server, which waits for them at its end.
    """

    loop: asyncio.AbstractEventLoop
    flow: FlowControl
    tasks: set[asyncio.Task[Any]]

    def send(self, answer: bytes, *, last: bool) -> None:
        """Send the whole of an answer, and close the connection after it where it is the last."""
        ...


class _Nobody:
    """Stands for the event which a task of uvicorn would wait for."""

    def set(self) -> None:
        """Wake nobody."""


class Straight:
    """One request. It is where uvicorn has its `RequestResponseCycle`, and has what uvicorn looks at there.

    Args:
        line: the connection.
        exchange: what answers.
        path: the exchange's.
        headers: names in lower case.
        keep_alive: whether the connection stays open after the answer.

    Attributes:
        more_body: whether the body has not come to its end.
        response_complete: whether all was said, or is not to be said.
        disconnected: whether the client is gone.
    """

    __slots__ = (
        "_call",
        "_exchange",
        "_line",
        "_parts",
        "_size",
        "_task",
        "disconnected",
        "keep_alive",
        "more_body",
        "response_complete",
    )

    message_event: Final = _Nobody()

    def __init__(
        self, line: Line, exchange: Exchange, path: str, headers: dict[bytes, bytes], *, keep_alive: bool
    ) -> None:
        self._line = line
        self._exchange = exchange
        self._call = Call(path, headers, uuid7_text(), time.time(), time.perf_counter())
        self._parts: list[bytes] = []
        self._size = 0
        self._task: asyncio.Task[None] | None = None
        self.keep_alive = keep_alive
        self.more_body = True
        self.response_complete = False
        self.disconnected = False

    def begin(self) -> None:
        """Look at the head; what is refused is told so before its body is read."""
        self._exchange.watch.others.add(self)
        try:
            self._exchange.enter(self._call)
        except Exception as error:  # noqa: BLE001 - it is the answer
            self._say(error)

    def feed(self, part: bytes) -> None:
        """Take a part of the body."""
        if self._call.over:
            return
        self._size += len(part)
        limit = self._exchange.limits.body_bytes
        if self._size <= limit:
            self._parts.append(part)
        else:
            # Read on for a while: a client still sending would not see the answer.
            self._parts.clear()
            if self._size > READ_ON * limit:
                self._say(self._exchange.too_large())

    def end(self) -> None:
        """Answer: the body is whole."""
        if self._call.over:
            return
        self.more_body = False
        exchange, call = self._exchange, self._call
        try:
            if self._size > exchange.limits.body_bytes:
                raise exchange.too_large()
            parts = self._parts
            body = exchange.unpacked(call, parts[0] if len(parts) == 1 else b"".join(parts))
            # Nothing holds the parts until the answer.
            self._parts = []
            if exchange.begin is not None and len(body) < LARGE_BODY:
                exchange.begin(call, body, self._say)
            else:
                self._task = self._started(self._work(body))
        except Exception as error:  # noqa: BLE001 - it is the answer
            self._say(error)

    def look(self, now: float) -> None:
        """Refuse it if it is late."""
        limits = self._exchange.limits
        allowed, problem = (limits.body_seconds, SLOW_BODY) if self.more_body else (limits.answer_seconds, SLOW_ANSWER)
        if now - self._call.started > allowed:
            if self._task is not None:
                self._task.cancel()
            self._say(problem)

    def leave(self) -> None:
        """Note that the client is gone: there is nothing to answer where it has not asked yet."""
        self.disconnected = True
        if self.more_body and not self._call.over:
            self._over()
            self.response_complete = True
            self._exchange.finished(self._call, 499)

    async def _work(self, body: bytes) -> None:
        try:
            said = await self._exchange.work(self._call, body)
        except Exception as error:  # noqa: BLE001 - a model may raise anything; the client still gets a document
            self._say(error)
        else:
            self._say(said)

    def _say(self, said: EncodedResponse | Exception) -> None:
        """Answer, once."""
        if self._call.over:
            return
        self._over()
        status, answer, close = _written(self._call, said)
        if close:
            self.keep_alive = False
        if self._line.flow.write_paused and not self.disconnected:
            self._started(self._send_later(status, answer))
        else:
            self._send(status, answer)

    def _over(self) -> None:
        self._exchange.watch.others.discard(self)
        self._exchange.leave(self._call)

    def _send(self, status: int, answer: bytes) -> None:
        self.response_complete = True
        if not self.disconnected:
            if not self.keep_alive:
                answer = answer.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
            self._line.send(answer, last=not self.keep_alive)
        self._exchange.finished(self._call, status)

    async def _send_later(self, status: int, answer: bytes) -> None:
        """Send it when the client has taken what was sent before."""
        await self._line.flow.drain()
        self._send(status, answer)

    def _started(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        tasks = self._line.tasks
        task = self._line.loop.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task


def _written(call: Call, said: EncodedResponse | Exception) -> tuple[int, bytes, bool]:
    """Return status and bytes of the answer, and whether the connection ends with it."""
    answer = answer_of(call, said)
    head = (
        f"{_STATUS[answer.status]}{_line('content-type', answer.media_type)}content-length: {len(answer.body)}\r\n"
        f"x-request-id: {call.request_id}\r\n{_line('x-tidemill-model-version', call.version)}"
    )
    if call.trace is not None:
        head += f"traceparent: {traceparent_of(call.trace)}\r\n"
    close = False
    for name, value in answer.headers.items():
        if (name, value) == ("Connection", "close"):
            close = True  # told with those which end for another reason
        else:
            head += _line(name.lower(), value)
    return answer.status, f"{head}\r\n".encode("latin-1") + answer.body, close


@lru_cache(maxsize=256)
def _line(name: str, value: str) -> str:
    """Return a line of the head; none where there is no value. Whatever a value holds, it is one line."""
    return f"{name}: {_CONTROL.sub('', value)}\r\n" if value else ""
