"""From a body to an answer: read by the version which serves, answered in a batch, captured, shown to the shadow."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from concurrent.futures import Executor

from ..http.admission import Admission
from ..http.errors import Problem
from ..http.request_context import Headers, RequestContext
from ..http.request_handler import OnResult
from ..protocols.base import Answered, Decoded, Decoder, Encoded, Incoming
from ..recording.writer import CapturedRequest
from ..settings import ServingSettings
from ..versions.alias_watcher import Follower
from ..versions.in_flight import Leases
from ..versions.model import ServedModel
from ..versions.shadow import Shadow
from .batch import Outputs
from .batcher import Batcher

__all__ = ["LARGE_BODY", "Inference"]

LARGE_BODY = 64 * 1024
"""From so many bytes on a body is read off the event loop."""

_LARGE_ANSWER = 1024


class Inference:
    """Answers the requests of one worker.

    Args:
        settings: those of the server.
        follower: knows the version which serves.
        batcher: calls it.
        leases: keeps it while it is used.
        admission: turns away what would wait too long.
        executor: for reading large bodies and writing large answers, off the event loop.
        capture: takes what was answered; None captures nothing.
        shadow: is shown what was answered, or None.
    """

    def __init__(
        self,
        settings: ServingSettings,
        follower: Follower,
        batcher: Batcher,
        leases: Leases,
        admission: Admission,
        executor: Executor,
        capture: Callable[[CapturedRequest], None] | None,
        shadow: Shadow | None,
    ) -> None:
        self._settings = settings
        self._limits = settings.limits
        self._follower = follower
        self._batcher = batcher
        self._leases = leases
        self._admission = admission
        self._executor = executor
        self._capture = capture
        self._shadow = shadow

    async def answer(self, decoder: Decoder, call: RequestContext, body: bytes) -> Encoded:
        """Return the answer to `body`.

        Raises:
            Problem: it cannot be read, there is no model, or too much to do.
        """
        model = self._serving(call)
        incoming = _incoming(call, body)
        # The lease is held over every wait, so that the version is not closed in between.
        self._leases.take(model)
        try:
            if len(body) < LARGE_BODY:
                decoded = decoder(model, incoming, self._limits)
            else:
                decoded = await self._off_the_loop(decoder, model, incoming)
            call.rows = decoded.batch.rows
            outputs = await self._batcher.submit(model, decoded.batch)
        finally:
            self._leases.give(model)
        answered = Answered(outputs, model, call.request_id, call.client_request_id)
        if call.rows < _LARGE_ANSWER:
            encoded = decoded.encode(answered)
        else:
            encoded = await asyncio.get_running_loop().run_in_executor(self._executor, decoded.encode, answered)
        self._keep(call, model, decoded, outputs)
        return encoded

    def ask(self, decoder: Decoder, call: RequestContext, body: bytes, done: OnResult) -> None:
        """Have `done` called with the answer to `body`, which is not large, or with what `answer` would raise.

        The same without a task of its own, which costs more than the model.

        Raises:
            Problem: it cannot be read, there is no model, or too much to do; `done` is not called then.
        """
        model = self._serving(call)
        decoded = decoder(model, _incoming(call, body), self._limits)
        call.rows = decoded.batch.rows
        self._batcher.ask(model, decoded.batch, functools.partial(self._say, call, model, decoded, done))

    def _say(
        self, call: RequestContext, model: ServedModel, decoded: Decoded, done: OnResult, outputs: Outputs | Exception
    ) -> None:
        if call.over:
            return
        if isinstance(outputs, Exception):
            done(outputs)
            return
        encode = functools.partial(decoded.encode, Answered(outputs, model, call.request_id, call.client_request_id))
        try:
            if call.rows >= _LARGE_ANSWER:
                saying = asyncio.get_running_loop().run_in_executor(self._executor, encode)
                saying.add_done_callback(lambda said: self._said(call, model, decoded, outputs, done, said))
                return
            encoded = encode()
            self._keep(call, model, decoded, outputs)
        except Exception as error:  # noqa: BLE001 - it is the answer to this request
            done(error)
        else:
            done(encoded)

    def _said(
        self,
        call: RequestContext,
        model: ServedModel,
        decoded: Decoded,
        outputs: Outputs,
        done: OnResult,
        said: asyncio.Future[Encoded],
    ) -> None:
        if call.over or said.cancelled():
            return
        try:
            encoded = said.result()
            self._keep(call, model, decoded, outputs)
        except Exception as error:  # noqa: BLE001 - it is the answer to this request
            done(error)
        else:
            done(encoded)

    def _serving(self, call: RequestContext) -> ServedModel:
        """Return the version which answers; it is asked for once, so that a swap meanwhile does not touch the call."""
        model = self._follower.current
        if model is None:
            settings = self._settings
            raise Problem(
                503, f"no version of {settings.model} serves as {settings.alias} yet", headers={"Retry-After": "5"}
            )
        call.version = model.info.version
        self._admission.check_queue()
        return model

    def _keep(self, call: RequestContext, model: ServedModel, decoded: Decoded, outputs: Outputs) -> None:
        """Hand on what was answered, to the capture and to the shadow."""
        if self._capture is None and self._shadow is None:
            return
        captured = CapturedRequest(
            call.request_id,
            call.client_request_id,
            call.received_at,
            model,
            model.info.alias or self._settings.alias,
            decoded.batch,
            outputs,
        )
        if self._capture is not None:
            self._capture(captured)
        if self._shadow is not None:
            self._shadow.offer(captured, busy=self._batcher.waiting_rows > 0)

    async def _off_the_loop(self, decoder: Decoder, model: ServedModel, incoming: Incoming) -> Decoded:
        return await asyncio.get_running_loop().run_in_executor(self._executor, decoder, model, incoming, self._limits)


def _incoming(call: RequestContext, body: bytes) -> Incoming:
    headers = call.headers
    return Incoming(body, _text(headers, b"content-type"), _text(headers, b"accept"), Headers(headers))


def _text(headers: Mapping[bytes, bytes], name: bytes) -> str:
    given = headers.get(name)
    return "" if given is None else given.decode("latin-1")
