"""The handler of a hot route: a bare ASGI application that admits, reads, answers and counts a request.

FastAPI's own routing and validation cost more than all of this, so the hot routes bypass them.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from ...common.ids import uuid7_text
from ..codecs.decompression import decompress
from ..protocols.base import EncodedResponse
from ..settings import LimitSettings
from .admission import Admission
from .deadlines import SLOW_ANSWER, SLOW_BODY, Deadlines
from .errors import Problem
from .key_file import Use
from .limit_errors import too_large
from .request_context import RequestContext
from .responses import build_response, head_lines

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

OnResult: TypeAlias = Callable[[EncodedResponse | Exception], None]
"""Receives the result of a request."""
Answer: TypeAlias = Callable[[RequestContext, bytes], Awaitable[EncodedResponse]]
"""Returns the answer to a body; raises Problem."""
StartAnswer: TypeAlias = Callable[[RequestContext, bytes, OnResult], None]
"""Does the same for a small body without a task: calls back with the result."""

READ_LIMITS = 4
"""The server reads at most this many times the limit of a body that is too large."""

_PRINTABLE = re.compile(rb"[\x20-\x7e]{1,128}")
# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class RequestHandler:
    """An ASGI application for one path, method POST.

    Args:
        answer: answers a body.
        admission: checks keys and limits.
        limits: of body and time.
        deadlines: ends requests that take too long.
        on_finished: receives each finished request, its status and its seconds.
        check_load: called before the body is read; raises Problem if the server is too busy.
        start_answer: answers a small body without a task; None if the route has no such way.
        use: the use that a key must have.
    """

    def __init__(
        self,
        answer: Answer,
        admission: Admission,
        limits: LimitSettings,
        deadlines: Deadlines,
        on_finished: Callable[[RequestContext, int, float], None],
        check_load: Callable[[], None] = lambda: None,
        start_answer: StartAnswer | None = None,
        use: Use = "predict",
    ) -> None:
        self._use: Use = use
        self._check_load = check_load
        self.answer = answer
        self.start_answer = start_answer
        self._admission = admission
        self.limits = limits
        self.deadlines = deadlines
        self._on_finished = on_finished

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        context = RequestContext(scope["path"], headers, uuid7_text(), time.time(), time.perf_counter())
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - an application runs in a task
        result: EncodedResponse | Exception
        try:
            try:
                self.admit(context)
                self.deadlines.set(task, context.started + self.limits.body_seconds, SLOW_BODY)
                body = await self._read_body(context, receive)
                self.deadlines.set(task, context.started + self.limits.answer_seconds, SLOW_ANSWER)
                result = await self.answer(context, body)
            except asyncio.CancelledError:
                problem = self.deadlines.reason(task)
                if problem is None:
                    raise
                result = problem
            except Exception as error:  # noqa: BLE001 - a model may raise anything; the client still gets a document
                result = error
        finally:
            self.deadlines.clear(task)
            self.release(context)
        if isinstance(result, _ClientLeftError):
            self.finish(context, 499)
            return
        response = build_response(context, result)
        lines, close = head_lines(context, response)
        raw_headers = [tuple(line.split(b": ", 1)) for line in lines.encode("latin-1").split(b"\r\n")[:-1]]
        if close:
            raw_headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": response.status, "headers": raw_headers})
        await send({"type": "http.response.body", "body": response.body})
        self.finish(context, response.status)

    def admit(self, context: RequestContext) -> None:
        """Check the head of a request and count it as in flight; `release` must follow.

        Raises:
            Problem: the request is not admitted, or its head is invalid.
        """
        context.key = self._admission.admit(context.headers, self._use)
        self._read_ids(context)
        self._check_load()

    def release(self, context: RequestContext) -> None:
        """Mark a request as over and no longer in flight."""
        context.over = True
        if context.key is not None:
            self._admission.release(context.key)

    def finish(self, context: RequestContext, status: int) -> None:
        """Report a finished request; status 499 if the client left."""
        self._on_finished(context, status, time.perf_counter() - context.started)

    def decompress(self, context: RequestContext, body: bytes) -> bytes:
        """Return `body` decompressed as its `Content-Encoding` says.

        Raises:
            Problem: it is too large, or cannot be decompressed.
        """
        if len(body) > self.limits.body_bytes:
            raise self.too_large(context, len(body))
        encoding = context.headers.get(b"content-encoding")
        return body if encoding is None else decompress(body, encoding.decode("latin-1"), self.limits.body_bytes)

    def too_large(self, context: RequestContext, received: int) -> Problem:
        """Return the refusal of a body that is too large, of which `received` bytes have arrived."""
        declared = context.headers.get(b"content-length", b"")
        # uvicorn has checked that it is a number.
        size = f"{int(declared)}" if declared.isdigit() else f"at least {received}"
        return too_large(f"the body has {size} bytes", self.limits.body_bytes)

    @staticmethod
    def _read_ids(context: RequestContext) -> None:
        headers = context.headers
        header = headers.get(b"x-request-id")
        if header is not None:
            if not _PRINTABLE.fullmatch(header):
                raise Problem(400, "x-request-id: must be 1 to 128 printable ASCII characters")
            context.client_request_id = header.decode("ascii")
        header = headers.get(b"traceparent")
        if header is not None and _TRACEPARENT.fullmatch(header):
            # An invalid header is ignored (W3C Trace Context, section 3.2.2.5).
            context.trace = header.decode("ascii")

    async def _read_body(self, context: RequestContext, receive: Receive) -> bytes:
        limit = self.limits.body_bytes
        parts: list[bytes] = []
        size, more = 0, True
        # Read on for a while if the body is too large: a client that is still sending would not see the answer.
        while more and size <= READ_LIMITS * limit:
            message = await receive()
            if message["type"] != "http.request":
                raise _ClientLeftError
            part: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(part)
            if size <= limit:
                parts.append(part)
            else:
                parts.clear()
        if size > limit:
            raise self.too_large(context, size)
        return self.decompress(context, parts[0] if len(parts) == 1 else b"".join(parts))


class _ClientLeftError(Exception):
    """The client closed the connection before its request was complete."""
