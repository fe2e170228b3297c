"""The fast path: a request of a hot route, from its head to its answer, on the connection itself.

uvicorn creates a scope, a task and at least two messages for each request, which together cost more than the answer.
On the fast path the connection passes the body to a `FastPathRequest` as it arrives, and the whole response is one
write. Unusual requests (pipelined, with `Expect`, HTTP/1.0) go through ASGI to the same `RequestHandler`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, Final, Protocol

from ...common.ids import uuid7_text
from ..inference.prediction import LARGE_BODY
from ..protocols.base import EncodedResponse
from .deadlines import SLOW_ANSWER, SLOW_BODY
from .request_context import RequestContext
from .request_handler import READ_LIMITS, RequestHandler
from .responses import build_response, head_lines

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


class FlowControl(Protocol):
    """Pauses writing while the client does not read."""

    @property
    def write_paused(self) -> bool:
        """Whether writing is paused."""
        ...

    async def drain(self) -> None:
        """Wait until writing is no longer paused."""
        ...


class Connection(Protocol):
    """The connection of a request.

    Attributes:
        tasks: the server's tasks, which it awaits before it stops.
    """

    loop: asyncio.AbstractEventLoop
    tasks: set[asyncio.Task[Any]]

    @property
    def flow(self) -> FlowControl:
        """The flow control of its transport."""
        ...

    def send(self, response: bytes, *, last: bool) -> None:
        """Send a complete response; close the connection afterwards if it is the last."""
        ...


class _UnusedEvent:
    """Replaces the event that an ASGI task would wait for."""

    def set(self) -> None:
        """Do nothing."""


class FastPathRequest:
    """One request. It replaces uvicorn's `RequestResponseCycle` and has the attributes that uvicorn reads there.

    Args:
        connection: sends the response.
        handler: answers.
        path: the path of `handler`.
        headers: names in lower case.
        keep_alive: whether the connection stays open after the response.

    Attributes:
        more_body: whether the body is incomplete.
        response_complete: whether the response was sent, or none will be.
        disconnected: whether the client has left.
    """

    __slots__ = (
        "_connection",
        "_context",
        "_handler",
        "_parts",
        "_size",
        "_task",
        "disconnected",
        "keep_alive",
        "more_body",
        "response_complete",
    )

    message_event: Final = _UnusedEvent()

    def __init__(
        self,
        connection: Connection,
        handler: RequestHandler,
        path: str,
        headers: dict[bytes, bytes],
        *,
        keep_alive: bool,
    ) -> None:
        self._connection = connection
        self._handler = handler
        self._context = RequestContext(path, headers, uuid7_text(), time.time(), time.perf_counter())
        self._parts: list[bytes] = []
        self._size = 0
        self._task: asyncio.Task[None] | None = None
        self.keep_alive = keep_alive
        self.more_body = True
        self.response_complete = False
        self.disconnected = False

    def start(self) -> None:
        """Check the head; refuse the request before its body is read if it is not admitted."""
        self._handler.deadlines.expiring.add(self)
        try:
            self._handler.admit(self._context)
        except Exception as error:  # noqa: BLE001 - it is the answer
            self._respond(error)

    def feed(self, part: bytes) -> None:
        """Add a part of the body."""
        if self._context.over:
            return
        self._size += len(part)
        limit = self._handler.limits.body_bytes
        if self._size <= limit:
            self._parts.append(part)
        else:
            # Read on for a while: a client that is still sending would not see the answer.
            self._parts.clear()
            if self._size > READ_LIMITS * limit:
                self._respond(self._handler.too_large(self._context, self._size))

    def finish_body(self) -> None:
        """Answer the complete body."""
        if self._context.over:
            return
        self.more_body = False
        handler, context = self._handler, self._context
        try:
            if self._size > handler.limits.body_bytes:
                raise handler.too_large(context, self._size)
            parts = self._parts
            body = handler.decompress(context, parts[0] if len(parts) == 1 else b"".join(parts))
            # Free the parts before the answer.
            self._parts = []
            if handler.start_answer is not None and len(body) < LARGE_BODY:
                handler.start_answer(context, body, self._respond)
            else:
                self._task = self._create_task(self._answer(body))
        except Exception as error:  # noqa: BLE001 - it is the answer
            self._respond(error)

    def expire(self, now: float) -> None:
        """Refuse the request if it is late at `now`."""
        limits = self._handler.limits
        allowed, problem = (limits.body_seconds, SLOW_BODY) if self.more_body else (limits.answer_seconds, SLOW_ANSWER)
        if now - self._context.started > allowed:
            if self._task is not None:
                self._task.cancel()
            self._respond(problem)

    def disconnect(self) -> None:
        """Note that the client has left; end the request if its body is incomplete."""
        self.disconnected = True
        if self.more_body and not self._context.over:
            self._release()
            self.response_complete = True
            self._handler.finish(self._context, 499)

    async def _answer(self, body: bytes) -> None:
        try:
            result = await self._handler.answer(self._context, body)
        except Exception as error:  # noqa: BLE001 - a model may raise anything; the client still gets a document
            self._respond(error)
        else:
            self._respond(result)

    def _respond(self, result: EncodedResponse | Exception) -> None:
        """Send the response to `result`, unless the request is already over."""
        context = self._context
        if context.over:
            return
        self._release()
        response = build_response(context, result)
        lines, close = head_lines(context, response)
        if close:
            self.keep_alive = False
        message = f"{_STATUS_LINES[response.status]}{lines}\r\n".encode("latin-1") + response.body
        if self._connection.flow.write_paused and not self.disconnected:
            self._create_task(self._send_later(response.status, message))
        else:
            self._send(response.status, message)

    def _release(self) -> None:
        self._handler.deadlines.expiring.discard(self)
        self._handler.release(self._context)

    def _send(self, status: int, message: bytes) -> None:
        self.response_complete = True
        if not self.disconnected:
            if not self.keep_alive:
                message = message.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
            self._connection.send(message, last=not self.keep_alive)
        self._handler.finish(self._context, status)

    async def _send_later(self, status: int, message: bytes) -> None:
        """Send the response when the client has read the earlier ones."""
        await self._connection.flow.drain()
        self._send(status, message)

    def _create_task(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        tasks = self._connection.tasks
        task = self._connection.loop.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task
