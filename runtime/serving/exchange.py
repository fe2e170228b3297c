"""One request and its answer as a bare ASGI application: read within limits, worked on, answered, counted.

FastAPI's own routing and validation cost more than all of this; the hot routes go without them.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from tidemill.runtime.ids import uuid7_text
from tidemill.runtime.serving.admission import Admission
from tidemill.runtime.serving.problems import MEDIA_TYPE, Problem
from tidemill.runtime.serving.protocols.base import Encoded
from tidemill.runtime.serving.protocols.unpacking import unpack
from tidemill.runtime.serving.settings import LimitSettings

__all__ = ["Call", "Exchange", "Headers", "Watch"]

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

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


class Watch:
    """Ends what takes too long: one look over all tasks now and then, instead of a timer for each request."""

    def __init__(self) -> None:
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
    """

    def __init__(
        self,
        work: Callable[[Call, bytes], Awaitable[Encoded]],
        admission: Admission,
        limits: LimitSettings,
        watch: Watch,
        finished: Callable[[Call, int, float], None],
        gate: Callable[[], None] = lambda: None,
    ) -> None:
        self._gate = gate
        self._work = work
        self._admission = admission
        self._limits = limits
        self._watch = watch
        self._finished = finished

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        call = Call(scope["path"], headers, uuid7_text(), time.time(), time.perf_counter())
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - an application runs in a task
        try:
            try:
                call.key = self._admission.enter(headers)
                self._look_at(call, headers)
                self._gate()
                # Set anew where the time is another's; most requests are over long before either.
                self._watch.set(task, call.started + self._limits.body_seconds, _SLOW_BODY)
                body = await self._body(headers, receive)
                self._watch.set(task, call.started + self._limits.answer_seconds, _SLOW_ANSWER)
                encoded = await self._work(call, body)
                status, body, media_type, extra = 200, encoded.body, encoded.media_type, encoded.headers
            except Problem as problem:
                status, body, media_type, extra = self._refused(call, problem)
            except asyncio.CancelledError:
                problem = self._watch.reason(task)
                if problem is None:
                    raise
                status, body, media_type, extra = self._refused(call, problem)
            except _GoneError:
                status, body, media_type, extra = 499, b"", "text/plain", {}
            except Exception as error:  # noqa: BLE001 - a model may raise anything; the client still gets a document
                _log.error("a request failed", extra={"request_id": call.request_id, **_without_values(error)})
                problem = Problem(500, "the model failed on this request")
                status, body, media_type, extra = self._refused(call, problem)
        finally:
            self._watch.clear(task)
            if call.key is not None:
                self._admission.leave(call.key)
        if status != 499:
            await _send(send, call, status, body, media_type, extra)
        self._finished(call, status, time.perf_counter() - call.started)

    @staticmethod
    def _refused(call: Call, problem: Problem) -> tuple[int, bytes, str, dict[str, str]]:
        return problem.status, problem.encoded(call.request_id, call.client_request_id), MEDIA_TYPE, problem.headers

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

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        limit = self._limits.body_bytes
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
                    if size > 4 * limit:
                        break
            if size > limit:
                raise self._too_large()
            body = b"".join(parts)
        if len(body) > limit:
            raise self._too_large()
        encoding = headers.get(b"content-encoding")
        if encoding is not None:
            body = unpack(body, encoding.decode("latin-1"), limit)
        return body

    def _too_large(self) -> Problem:
        return Problem(413, f"the body is larger than {self._limits.body_bytes} bytes", headers={"Connection": "close"})


def _without_values(error: Exception) -> dict[str, str]:
    """Return what may be logged of `error`: what it is and where it came from. Its text may hold features."""
    return {"error": type(error).__name__, "where": "".join(traceback.format_tb(error.__traceback__))}


_SLOW_BODY = Problem(408, "the body did not come in time", headers={"Connection": "close"})
_SLOW_ANSWER = Problem(503, "there was no answer in time", headers={"Retry-After": "5"})


class _GoneError(Exception):
    """The client left; nobody is there to be answered."""


async def _send(send: Send, call: Call, status: int, body: bytes, media_type: str, extra: Mapping[str, str]) -> None:
    headers = [
        (b"content-type", media_type.encode("latin-1")),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", call.request_id.encode("ascii")),
    ]
    if call.version:
        headers.append((b"x-tidemill-model-version", call.version.encode("latin-1")))
    if call.trace is not None:
        # The same trace, and a span of ours below the client's.
        headers.append((b"traceparent", f"{call.trace[:36]}{secrets.token_hex(8)}{call.trace[52:]}".encode("ascii")))
    if extra:
        headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in extra.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
