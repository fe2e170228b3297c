"""Answers an inference request: decodes the body, calls the model in a batch, encodes, captures, runs the shadow."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from concurrent.futures import Executor

import numpy as np

from ..engines.outputs import Answer, has_values
from ..http.admission import Admission
from ..http.errors import Problem
from ..http.request_context import Headers, RequestContext
from ..http.request_handler import OnResult
from ..protocols.base import DecodedRequest, Decoder, EncodedResponse, InferenceRequest, InferenceResult
from ..recording.writer import CapturedRequest
from ..settings import ServingSettings
from ..versions.alias_watcher import AliasWatcher
from ..versions.in_flight import InFlightCalls
from ..versions.model import ServedModel
from ..versions.shadow import Shadow
from .batch import Outputs
from .batcher import Batcher

LARGE_BODY = 64 * 1024
"""Bodies of at least this size are decoded off the event loop."""

_LARGE_RESULT_ROWS = 1024
# Of an answer with few rows, or of the whole request.
_LARGE_RESULT_VALUES = 16_384


class Inference:
    """Answers the inference requests of one worker.

    Args:
        settings: of the server.
        alias_watcher: has the serving version.
        batcher: calls the model.
        in_flight: keeps the version open while it is used.
        admission: refuses requests that would wait too long.
        executor: decodes large bodies and encodes large results off the event loop.
        capture: captures answered requests, or None.
        shadow: also predicts answered requests, or None.
    """

    def __init__(
        self,
        settings: ServingSettings,
        alias_watcher: AliasWatcher,
        batcher: Batcher,
        in_flight: InFlightCalls,
        admission: Admission,
        executor: Executor,
        capture: Callable[[CapturedRequest], None] | None,
        shadow: Shadow | None,
    ) -> None:
        self._settings = settings
        self._limits = settings.limits
        self._alias_watcher = alias_watcher
        self._batcher = batcher
        self._in_flight = in_flight
        self._admission = admission
        self._executor = executor
        self._capture = capture
        self._shadow = shadow

    async def answer(self, decoder: Decoder, call: RequestContext, body: bytes) -> EncodedResponse:
        """Return the response to `body`.

        Raises:
            Problem: the body is invalid, no version serves, or the queue is full.
        """
        model = self._serving_model(call)
        request = _request(call, body)
        # Counted until the last await, so that the version is not closed in between.
        self._in_flight.begin(model)
        try:
            if len(body) < LARGE_BODY:
                decoded = decoder(model, request, self._limits)
            else:
                loop = asyncio.get_running_loop()
                decoded = await loop.run_in_executor(self._executor, decoder, model, request, self._limits)
            call.rows = decoded.batch.rows
            outputs = await self._batcher.submit(model, decoded.batch)
        finally:
            self._in_flight.end(model)
        result = InferenceResult(outputs, model, call.request_id, call.client_request_id)
        if not _is_large(call.rows, outputs):
            encoded = decoded.encode(result)
        else:
            encoded = await asyncio.get_running_loop().run_in_executor(self._executor, decoded.encode, result)
        self._hand_on(call, model, decoded, outputs)
        return encoded

    def begin_answer(self, decoder: Decoder, call: RequestContext, body: bytes, done: OnResult) -> None:
        """Call `done` later with the response to `body`, which must not be large, or with the exception.

        This works like `answer`, but without a task, which would cost more than the model.

        Raises:
            Problem: as for `answer`; `done` is then not called.
        """
        model = self._serving_model(call)
        decoded = decoder(model, _request(call, body), self._limits)
        call.rows = decoded.batch.rows
        self._batcher.enqueue(model, decoded.batch, functools.partial(self._encode, call, model, decoded, done))

    def _encode(
        self,
        call: RequestContext,
        model: ServedModel,
        decoded: DecodedRequest,
        done: OnResult,
        outputs: Outputs | Exception,
    ) -> None:
        if call.over:
            return
        if isinstance(outputs, Exception):
            done(outputs)
            return
        encode = functools.partial(
            decoded.encode, InferenceResult(outputs, model, call.request_id, call.client_request_id)
        )
        try:
            if _is_large(call.rows, outputs):
                encoding = asyncio.get_running_loop().run_in_executor(self._executor, encode)
                encoding.add_done_callback(functools.partial(self._encoded, call, model, decoded, outputs, done))
                return
            encoded = encode()
            self._hand_on(call, model, decoded, outputs)
        except Exception as error:  # noqa: BLE001 - becomes the response
            done(error)
        else:
            done(encoded)

    def _encoded(
        self,
        call: RequestContext,
        model: ServedModel,
        decoded: DecodedRequest,
        outputs: Outputs,
        done: OnResult,
        encoding: asyncio.Future[EncodedResponse],
    ) -> None:
        if call.over or encoding.cancelled():
            return
        try:
            encoded = encoding.result()
            self._hand_on(call, model, decoded, outputs)
        except Exception as error:  # noqa: BLE001 - becomes the response
            done(error)
        else:
            done(encoded)

    def _serving_model(self, call: RequestContext) -> ServedModel:
        """Return the serving version. Called once per request, so that a later swap does not affect it."""
        model = self._alias_watcher.current
        if model is None:
            settings = self._settings
            raise Problem(
                503, f"no version of {settings.model} serves as {settings.alias} yet", headers={"Retry-After": "5"}
            )
        call.version = model.info.version
        self._admission.check_queue()
        return model

    def _hand_on(self, call: RequestContext, model: ServedModel, decoded: DecodedRequest, outputs: Outputs) -> None:
        """Pass the answered request to the capture and the shadow."""
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
            call.key,
        )
        if self._capture is not None:
            self._capture(captured)
        if self._shadow is not None:
            self._shadow.offer(captured, busy=self._batcher.waiting_rows > 0)


def _is_large(rows: int, outputs: Outputs) -> bool:
    """Return whether the answer for `rows` rows takes so long to encode that the event loop would wait for it."""
    if rows >= _LARGE_RESULT_ROWS:
        return True
    if isinstance(outputs, np.ndarray):
        return outputs.size >= _LARGE_RESULT_VALUES
    return has_values(outputs.parts if isinstance(outputs, Answer) else outputs, _LARGE_RESULT_VALUES)


def _request(call: RequestContext, body: bytes) -> InferenceRequest:
    headers = call.headers
    return InferenceRequest(body, _header(headers, b"content-type"), _header(headers, b"accept"), Headers(headers))


def _header(headers: Mapping[bytes, bytes], name: bytes) -> str:
    given = headers.get(name)
    return "" if given is None else given.decode("latin-1")
