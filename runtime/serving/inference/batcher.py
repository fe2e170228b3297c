"""Adaptive micro-batching: requests that arrive while the model is busy share its next call.

An idle model is called immediately, without waiting for a batch to fill. The model runs in its own thread, so that the
event loop keeps reading requests for the next call. But a model thread takes the interpreter lock again after each
piece of native code, a hundred times for a hundred trees, and competes with the loop for it. So a model that needs
about a millisecond is called on the event loop, which then also merges more requests per call.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..engines.outputs import Answer, AnswerError
from ..http.errors import Problem
from ..settings import BatchSettings
from ..versions.in_flight import InFlightCalls
from ..versions.model import ServedModel
from .batch import COMPILED, Batch, Outputs
from .finite import non_finite_rows

_log = logging.getLogger(__name__)
_LIST_ROWS = 1024
_AVERAGE_WEIGHT = 0.1
_QUICK_SECONDS = 0.0015
# Engines that only compute. Other models may block in a call.
_QUICK_ENGINES = COMPILED | {"sklearn"}
_MIN_TIMED_CALLS = 10


@dataclass(slots=True)
class _Pending:
    model: ServedModel
    batch: Batch
    on_result: Callable[[Outputs | Exception], None]


class Batcher:
    """Predicts batches with merged model calls. Everything except slow model calls runs on the event loop.

    Args:
        settings: limits of one call.
        in_flight: counts the calls of each version.
        on_call: called on the loop after each call, with its rows and seconds.
        refuse_non_finite: refuse outputs with NaN or an infinity.
    """

    def __init__(
        self,
        settings: BatchSettings,
        in_flight: InFlightCalls,
        on_call: Callable[[int, float], None] = lambda _rows, _seconds: None,
        *,
        refuse_non_finite: bool = False,
    ) -> None:
        self._refuse_non_finite = refuse_non_finite
        self._rows = settings.rows
        self._wait = settings.max_wait_ms / 1000
        self._in_flight = in_flight
        self._on_call = on_call
        self._queue: deque[_Pending] = deque()
        self._calls: queue.SimpleQueue[list[_Pending] | None] = queue.SimpleQueue()
        self._scheduled: asyncio.Handle | None = None
        self._busy = False
        self._started = 0.0
        self._seconds_per_call = 0.0
        self._cpu_seconds_per_call = 0.0
        self._timed_calls = 0
        self._timed_model: ServedModel | None = None
        self._seconds_per_large_row = 0.0
        self.waiting_rows = 0
        self._small_rows = 0
        self._loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def submit(self, model: ServedModel, batch: Batch) -> asyncio.Future[Outputs]:
        """Return a future of the outputs of `model` for `batch`.

        It fails with Problem if the outputs are refused or unusable, and with the exception of the model if it raises.
        """
        future: asyncio.Future[Outputs] = self._loop.create_future()
        self.enqueue(model, batch, functools.partial(_set_result, future))
        return future

    def enqueue(self, model: ServedModel, batch: Batch, on_result: Callable[[Outputs | Exception], None]) -> None:
        """Call `on_result` later on the loop, with the result or the exception; it must not raise."""
        self._in_flight.begin(model)
        self._queue.append(_Pending(model, batch, on_result))
        self.waiting_rows += batch.rows
        if batch.rows < self._rows:
            self._small_rows += batch.rows
        if not self._busy:
            if self._scheduled is None:
                # In the next step of the loop: requests that arrived together are merged.
                self._scheduled = (
                    self._loop.call_later(self._wait, self._dispatch)
                    if self._wait
                    else self._loop.call_soon(self._dispatch)
                )
            elif self._wait and self.waiting_rows >= self._rows:
                self._scheduled.cancel()
                self._scheduled = self._loop.call_soon(self._dispatch)

    @property
    def expected_wait(self) -> float:
        """Estimated seconds until a request that arrives now reaches the model, from the recent calls."""
        if not self._busy:
            return 0.0
        calls = self._small_rows / self._rows
        large = self.waiting_rows - self._small_rows
        running = min(time.perf_counter() - self._started, self._seconds_per_call)
        return max(0.0, (calls + 1) * self._seconds_per_call - running) + large * self._seconds_per_large_row

    def close(self) -> None:
        """Stop the thread after the queued calls."""
        self._calls.put(None)

    def join(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for the thread to stop."""
        self._thread.join(timeout)

    def _dispatch(self) -> None:
        self._scheduled = None
        while self._queue and not self._busy:
            call, rows = self._next()
            self._started = time.perf_counter()
            if self._is_quick(call[0].model, rows):
                self._deliver(call, rows, _run_timed(call, refuse_non_finite=self._refuse_non_finite))
            else:
                self._busy = True
                self._calls.put(call)

    def _next(self) -> tuple[list[_Pending], int]:
        """Remove the requests of the next call from the queue; return them and their number of rows."""
        first = self._queue.popleft()
        call = [first]
        rows = first.batch.rows
        if first.model.engine.mergeable:
            while self._queue:
                candidate = self._queue[0]
                if (
                    candidate.model is not first.model
                    or rows + candidate.batch.rows > self._rows
                    or not candidate.batch.mergeable_with(first.batch)
                ):
                    break
                call.append(self._queue.popleft())
                rows += candidate.batch.rows
        self.waiting_rows -= rows
        if first.batch.rows < self._rows:  # then so are those merged with it
            self._small_rows -= rows
        return call, rows

    def _is_quick(self, model: ServedModel, rows: int) -> bool:
        """Return whether a call is fast enough to run on the loop, measured in the first calls of the model."""
        return (
            model.engine.name in _QUICK_ENGINES
            and model is self._timed_model
            and rows <= self._rows
            and self._timed_calls >= _MIN_TIMED_CALLS
            and self._cpu_seconds_per_call < _QUICK_SECONDS
        )

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            result = _run_timed(call, refuse_non_finite=self._refuse_non_finite)
            try:
                self._loop.call_soon_threadsafe(self._done, call, result)
            except RuntimeError:
                return  # the loop is closed, and no client is waiting

    def _done(self, call: list[_Pending], result: _CallResult) -> None:
        self._busy = False
        if self._queue:
            # First, so that the model is never idle while requests wait.
            self._dispatch()
        self._deliver(call, sum(pending.batch.rows for pending in call), result)

    def _deliver(self, call: list[_Pending], rows: int, result: _CallResult) -> None:
        for pending, outputs in zip(call, result.outputs, strict=True):
            self._in_flight.end(pending.model)
            try:
                pending.on_result(outputs)
            except Exception:  # noqa: BLE001 - the other requests must get their results
                _log.exception("a result could not be delivered")
        seconds = result.seconds
        if rows <= self._rows:
            if (model := call[0].model) is not self._timed_model:
                # Another version: measure again.
                self._timed_model, self._timed_calls = model, 0
            self._timed_calls += 1
            weight = _AVERAGE_WEIGHT if self._timed_calls > 1 else 1.0
            self._seconds_per_call += weight * (seconds - self._seconds_per_call)
            self._cpu_seconds_per_call += weight * (result.cpu_seconds - self._cpu_seconds_per_call)
        else:
            self._seconds_per_large_row += _AVERAGE_WEIGHT * (seconds / rows - self._seconds_per_large_row)
        self._on_call(rows, seconds)


@dataclass(slots=True)
class _CallResult:
    """The result of a model call.

    Attributes:
        outputs: outputs or the exception of each request.
        seconds: duration of the call.
        cpu_seconds: the part of it that the thread computed, without waiting for the processor or the interpreter.
    """

    outputs: list[Outputs | Exception]
    seconds: float
    cpu_seconds: float


def _run_timed(call: list[_Pending], *, refuse_non_finite: bool) -> _CallResult:
    started, cpu_started = time.perf_counter(), time.thread_time()
    outputs = _run(call)
    if refuse_non_finite:
        outputs = [_refuse_non_finite(each) for each in outputs]
    return _CallResult(outputs, time.perf_counter() - started, time.thread_time() - cpu_started)


def _set_result(future: asyncio.Future[Outputs], result: Outputs | Exception) -> None:
    if future.done():  # cancelled
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _run(call: list[_Pending]) -> list[Outputs | Exception]:
    """Return the outputs of each request in `call`; a request that the model rejects does not affect the others."""
    if len(call) == 1:
        return [_predict(call[0])]
    try:
        outputs = call[0].model.predict(Batch.merged([pending.batch for pending in call]))
    except Exception:  # noqa: BLE001 - one request may be at fault: run each separately
        return [_predict(pending) for pending in call]
    if isinstance(outputs, Answer) and outputs.rows is None:
        return [_predict(pending) for pending in call]
    values = outputs.tolist() if isinstance(outputs, np.ndarray) else outputs
    parts: list[Outputs | Exception] = []
    position = 0
    for pending in call:
        end = position + pending.batch.rows
        parts.append(values[position:end])
        position = end
    return parts


def _predict(pending: _Pending) -> Outputs | Exception:
    try:
        outputs = pending.model.predict(pending.batch)
    except AnswerError as error:
        return Problem(500, str(error))
    except Exception as error:  # noqa: BLE001 - a model may raise anything; it is the result of this request
        return error
    if isinstance(outputs, np.ndarray) and pending.batch.rows <= _LIST_ROWS:
        return outputs.tolist()
    return outputs


def _refuse_non_finite(outputs: Outputs | Exception) -> Outputs | Exception:
    if isinstance(outputs, Exception) or not (rows := non_finite_rows(outputs)):
        return outputs
    if isinstance(outputs, Answer) and outputs.rows is None:
        return Problem(422, "the model's answer has a value that is not finite")
    return Problem(422, f"the model has no finite output for row {rows[0]}")
