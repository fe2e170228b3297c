"""One request and its answer as a bare ASGI application: read within limits, worked on, answered, counted.

FastAPI's own routing and validation cost more than all of this; the hot routes go without them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

from ...common.ids import uuid7_text
from ..codecs.decompression import decompress
from ..protocols.base import EncodedResponse
from ..settings import LimitSettings
from .admission import Admission
from .errors import MEDIA_TYPE, Problem

__all__ = [
    "READ_ON",
    "SLOW_ANSWER",
    "SLOW_BODY",
    "Answer",
    "Call",
    "Done",
    "Exchange",
    "Headers",
    "Watch",
    "answer_of",
    "traceparent_of",
]

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

Done = Callable[[EncodedResponse | Exception], None]
"""Told of what a request is answered."""

_PRINTABLE = re.compile(rb"[\x20-\x7e]{1,128}")
# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Headers(Mapping[str, str]):
    """The headers of a request as text, for who needs more than a few of them."""

    def __init__(self, raw: Mapping[bytes, bytes]) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        return self._raw[name.encode("latin-1")].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._raw)

    def __len__(self) -> int:
        return len(self._raw)


@dataclass(slots=True)
class Call:
    """What is known of one request while it is answered.

    Attributes:
        received_at: seconds since the epoch.
        started: on the performance counter.
        version: the version which answered; empty where none did.
        rows: 0 where none were read.
        over: whether it was answered, or given up: whoever still works on it need not.
    """

    path: str
    headers: Mapping[bytes, bytes]
    request_id: str
    received_at: float
    started: float
    client_request_id: str | None = None
    key: str | None = None
    trace: str | None = None
    version: str = ""
    rows: int = 0
    over: bool = False


class Late(Protocol):
    """What a watch looks at besides tasks."""

    def look(self, now: float) -> None:
        """End it if it is late at `now` on the performance counter."""
        ...


class Watch:
    """Ends what takes too long: one look over all of it now and then, instead of a timer for each request.

    Attributes:
        others: what runs without a task, and knows itself when it is late.
    """

    def __init__(self) -> None:
        self.others: set[Late] = set()
        self._until: dict[asyncio.Task[Any], tuple[float, Problem]] = {}
        self._late: dict[asyncio.Task[Any], Problem] = {}

    def set(self, task: asyncio.Task[Any], until: float, problem: Problem) -> None:
        """Have `task` end with `problem` at `until` on the performance counter, in place of what was set before."""
        self._until[task] = (until, problem)

    def clear(self, task: asyncio.Task[Any]) -> None:
        """Let `task` be."""
        self._until.pop(task, None)

    def look(self) -> None:
        """Cancel what is late."""
        now = time.perf_counter()
        for task in [task for task, (until, _) in self._until.items() if until < now]:
            self._late[task] = self._until.pop(task)[1]
            task.cancel()
        for other in list(self.others):
            other.look(now)

    def end(self) -> None:
        """End what runs without a task; those which have one are cancelled by the server."""
        for other in list(self.others):
            other.look(math.inf)

    def reason(self, task: asyncio.Task[Any]) -> Problem | None:
        """Return why `task` was cancelled, if it was for being late; it then is not cancelled any more."""
        problem = self._late.pop(task, None)
        if problem is not None:
            task.uncancel()
        return problem


class Exchange:
    """An ASGI application for one path and method.

    Args:
        work: makes the answer of a body; raises Problem.
        admission: who is let in.
        limits: on the body and the time.
        watch: ends what takes too long.
        finished: told of each answer: the call, the status, the seconds.
        gate: looks, before the body is read, whether there is too much to do; raises Problem.
        begin: as `work`, for a body which is not large, without a task: calls back with what `work` returns or raises;
            None where there is no such way.
    """

    def __init__(
        self,
        work: Callable[[Call, bytes], Awaitable[EncodedResponse]],
        admission: Admission,
        limits: LimitSettings,
        watch: Watch,
        finished: Callable[[Call, int, float], None],
        gate: Callable[[], None] = lambda: None,
        begin: Callable[[Call, bytes, Done], None] | None = None,
    ) -> None:
        self._gate = gate
        self.work = work
        self.begin = begin
        self._admission = admission
        self.limits = limits
        self.watch = watch
        self._finished = finished

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        call = Call(scope["path"], headers, uuid7_text(), time.time(), time.perf_counter())
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - an application runs in a task
        said: EncodedResponse | Exception
        try:
            try:
                self.enter(call)
                # Set anew where the time is another's; most requests are over long before either.
                self.watch.set(task, call.started + self.limits.body_seconds, SLOW_BODY)
                body = await self._body(call, receive)
                self.watch.set(task, call.started + self.limits.answer_seconds, SLOW_ANSWER)
                said = await self.work(call, body)
            except asyncio.CancelledError:
                problem = self.watch.reason(task)
                if problem is None:
                    raise
                said = problem
            except Exception as error:  # noqa: BLE001 - a model may raise anything; the client still gets a document
                said = error
        finally:
            self.watch.clear(task)
            self.leave(call)
        if isinstance(said, _GoneError):
            self.finished(call, 499)
            return
        answer = answer_of(call, said)
        await send({"type": "http.response.start", "status": answer.status, "headers": _headers(call, answer)})
        await send({"type": "http.response.body", "body": answer.body})
        self.finished(call, answer.status)

    def enter(self, call: Call) -> None:
        """Let a request in, of which the head has come; `leave` must follow.

        Raises:
            Problem: it is not let in, or its head is wrong.
        """
        call.key = self._admission.enter(call.headers)
        self._look_at(call, call.headers)
        self._gate()

    def leave(self, call: Call) -> None:
        """Note that a request is not worked on any more."""
        call.over = True
        if call.key is not None:
            self._admission.leave(call.key)

    def finished(self, call: Call, status: int) -> None:
        """Count a request which was answered; 499 where its client left."""
        self._finished(call, status, time.perf_counter() - call.started)

    def unpacked(self, call: Call, body: bytes) -> bytes:
        """Return `body` as it is without its packing.

        Raises:
            Problem: it is too large, or not packed as its head says.
        """
        if len(body) > self.limits.body_bytes:
            raise self.too_large()
        encoding = call.headers.get(b"content-encoding")
        return body if encoding is None else decompress(body, encoding.decode("latin-1"), self.limits.body_bytes)

    @staticmethod
    def _look_at(call: Call, headers: Mapping[bytes, bytes]) -> None:
        given = headers.get(b"x-request-id")
        if given is not None:
            if not _PRINTABLE.fullmatch(given):
                raise Problem(400, "x-request-id: wants 1 to 128 printable ASCII characters")
            call.client_request_id = given.decode("ascii")
        given = headers.get(b"traceparent")
        if given is not None and _TRACEPARENT.fullmatch(given):
            # A header which is not valid is as good as none (W3C Trace Context, section 3.2.2.5).
            call.trace = given.decode("ascii")

    async def _body(self, call: Call, receive: Receive) -> bytes:
        limit = self.limits.body_bytes
        message = await receive()
        body: bytes = message.get("body", b"")
        if message["type"] != "http.request":
            raise _GoneError
        if message.get("more_body"):
            parts, size = [body], len(body)
            while message.get("more_body"):
                message = await receive()
                if message["type"] != "http.request":
                    raise _GoneError
                part: bytes = message.get("body", b"")
                size += len(part)
                if size <= limit:
                    parts.append(part)
                else:
                    # Read on for a while: a client still sending would not see the answer.
                    parts.clear()
                    if size > READ_ON * limit:
                        break
            if size > limit:
                raise self.too_large()
            body = b"".join(parts)
        return self.unpacked(call, body)

    def too_large(self) -> Problem:
        """Return the refusal of a body which is too large."""
        return Problem(413, f"the body is larger than {self.limits.body_bytes} bytes", headers={"Connection": "close"})


def _without_values(error: Exception) -> dict[str, str]:
    """Return what may be logged of `error`: what it is and where it came from. Its text may hold features."""
    return {"error": type(error).__name__, "where": "".join(traceback.format_tb(error.__traceback__))}


SLOW_BODY = Problem(408, "the body did not come in time", headers={"Connection": "close"})
SLOW_ANSWER = Problem(503, "there was no answer in time", headers={"Retry-After": "5"})
READ_ON = 4
"""Of a body which is too large so many times the limit is read."""


class _GoneError(Exception):
    """The client left; nobody is there to be answered."""


@dataclass(slots=True)
class Answer:
    """What is sent; `headers` are those which this answer has and others have not."""

    status: int
    body: bytes
    media_type: str
    headers: Mapping[str, str]


def answer_of(call: Call, said: EncodedResponse | Exception) -> Answer:
    """Return what is sent where the work has said `said`; what is none of its refusals is logged."""
    if isinstance(said, EncodedResponse):
        return Answer(200, said.body, said.media_type, said.headers)
    if isinstance(said, Problem):
        problem = said
    else:
        _log.error("a request failed", extra={"request_id": call.request_id, **_without_values(said)})
        problem = Problem(500, "the model failed on this request")
    body = problem.encoded(call.request_id, call.client_request_id)
    return Answer(problem.status, body, MEDIA_TYPE, problem.headers)


def traceparent_of(trace: str) -> str:
    """Return the same trace with a span of ours, below the client's."""
    return f"{trace[:36]}{secrets.token_hex(8)}{trace[52:]}"


def _headers(call: Call, answer: Answer) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"content-type", answer.media_type.encode("latin-1")),
        (b"content-length", b"%d" % len(answer.body)),
        (b"x-request-id", call.request_id.encode("ascii")),
    ]
    if call.version:
        headers.append((b"x-tidemill-model-version", call.version.encode("latin-1")))
    if call.trace is not None:
        headers.append((b"traceparent", traceparent_of(call.trace).encode("ascii")))
    headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
    return headers
