"""Adaptive micro-batching: requests which come while the model is busy are answered together by its next call.

An idle model is given what is there at once; nobody waits for a batch to fill. The model is called in a thread of its
own, so that the event loop goes on reading requests meanwhile; those make the next call. But handing a call to a thread
and its answer back costs some 50 us: a compiled model which is done sooner than that is called where it stands.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tidemill.runtime.serving.batch import COMPILED, Batch, Outputs, is_finite
from tidemill.runtime.serving.leases import Leases
from tidemill.runtime.serving.model import ServedModel
from tidemill.runtime.serving.problems import Problem
from tidemill.runtime.serving.settings import BatchSettings

__all__ = ["Batcher"]

_log = logging.getLogger(__name__)
_SHORT = 1024
_WEIGHT = 0.1
_QUICK_SECONDS = 0.00015
_TRIALS = 10


@dataclass(slots=True)
class _Waiting:
    model: ServedModel
    batch: Batch
    answer: asyncio.Future[Outputs]


class Batcher:
    """Answers batches by calls of the model. All but the call itself happens on the event loop.

    Args:
        settings: how much goes into one call.
        leases: told of every version in use.
        called: called on the loop with the rows and the seconds of each call.
    """

    def __init__(
        self, settings: BatchSettings, leases: Leases, called: Callable[[int, float], None] = lambda _r, _s: None
    ) -> None:
        self._rows = settings.rows
        self._wait = settings.max_wait_ms / 1000
        self._leases = leases
        self._called = called
        self._queue: deque[_Waiting] = deque()
        self._calls: queue.SimpleQueue[list[_Waiting] | None] = queue.SimpleQueue()
        self._planned: asyncio.Handle | None = None
        self._busy = False
        self._started = 0.0
        self._seconds_a_call = 0.0
        self._trials = 0
        self._seconds_a_large_row = 0.0
        self.waiting_rows = 0
        self._small_rows = 0
        self._loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def submit(self, model: ServedModel, batch: Batch) -> asyncio.Future[Outputs]:
        """Return what `model` will give for `batch`: an array or list with one value a row.

        The future fails with Problem where the model has no finite answer to these rows, and with whatever the model
        raised otherwise.
        """
        answer: asyncio.Future[Outputs] = self._loop.create_future()
        self._leases.take(model)
        self._queue.append(_Waiting(model, batch, answer))
        self.waiting_rows += batch.rows
        if batch.rows < self._rows:
            self._small_rows += batch.rows
        if not self._busy:
            if self._planned is None:
                # A step of the loop later: requests which arrived together are answered together.
                self._planned = (
                    self._loop.call_later(self._wait, self._dispatch)
                    if self._wait
                    else self._loop.call_soon(self._dispatch)
                )
            elif self._wait and self.waiting_rows >= self._rows:
                self._planned.cancel()
                self._planned = self._loop.call_soon(self._dispatch)
        return answer

    @property
    def expected_wait(self) -> float:
        """Seconds after which a request that came now would be sent to the model, by the calls of late."""
        if not self._busy:
            return 0.0
        calls = self._small_rows / self._rows
        large = self.waiting_rows - self._small_rows
        running = min(time.perf_counter() - self._started, self._seconds_a_call)
        return max(0.0, (calls + 1) * self._seconds_a_call - running) + large * self._seconds_a_large_row

    def close(self) -> None:
        """End the thread after the calls which wait."""
        self._calls.put(None)

    def join(self, timeout: float) -> None:
        """Wait for the end of the thread, at most `timeout` seconds."""
        self._thread.join(timeout)

    def _dispatch(self) -> None:
        self._planned = None
        while self._queue and not self._busy:
            call, rows = self._next()
            self._started = time.perf_counter()
            if self._is_quick(call[0].model, rows):
                results = _answers(call)
                self._answer(call, rows, results, time.perf_counter() - self._started)
            else:
                self._busy = True
                self._calls.put(call)

    def _next(self) -> tuple[list[_Waiting], int]:
        """Take from the queue what goes into one call."""
        first = self._queue.popleft()
        call = [first]
        rows = first.batch.rows
        if first.model.engine.mergeable and isinstance(first.batch.values, list):
            while self._queue:
                following = self._queue[0]
                if (
                    following.model is not first.model
                    or rows + following.batch.rows > self._rows
                    or not isinstance(following.batch.values, list)
                ):
                    break
                call.append(self._queue.popleft())
                rows += following.batch.rows
        self.waiting_rows -= rows
        if first.batch.rows < self._rows:  # then so are those which go with it
            self._small_rows -= rows
        return call, rows

    def _is_quick(self, model: ServedModel, rows: int) -> bool:
        """Tell whether a call is over sooner than a thread could be told of it; the first ones show how it is."""
        return (
            model.engine.name in COMPILED
            and rows <= self._rows
            and self._trials >= _TRIALS
            and self._seconds_a_call < _QUICK_SECONDS
        )

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            started = time.perf_counter()
            results = _answers(call)
            seconds = time.perf_counter() - started
            try:
                self._loop.call_soon_threadsafe(self._done, call, results, seconds)
            except RuntimeError:
                # The loop is closed: nobody waits for an answer any more.
                return

    def _done(self, call: list[_Waiting], results: list[Outputs | Exception], seconds: float) -> None:
        self._busy = False
        if self._queue:
            # First of all: the model is never idle while somebody waits.
            self._dispatch()
        self._answer(call, sum(waiting.batch.rows for waiting in call), results, seconds)

    def _answer(self, call: list[_Waiting], rows: int, results: list[Outputs | Exception], seconds: float) -> None:
        for waiting, result in zip(call, results, strict=True):
            self._leases.give(waiting.model)
            if waiting.answer.done():
                continue
            if isinstance(result, Exception):
                waiting.answer.set_exception(result)
            else:
                waiting.answer.set_result(result)
        if rows <= self._rows:
            self._trials += 1
            self._seconds_a_call += (_WEIGHT if self._trials > 1 else 1.0) * (seconds - self._seconds_a_call)
        else:
            self._seconds_a_large_row += _WEIGHT * (seconds / rows - self._seconds_a_large_row)
        self._called(rows, seconds)


def _answers(call: list[_Waiting]) -> list[Outputs | Exception]:
    """Return what each request of `call` is answered; one which the model cannot take does not touch the others."""
    if len(call) == 1:
        return [_answer(call[0])]
    model = call[0].model
    try:
        outputs = model.predict(Batch.merged([waiting.batch for waiting in call]))
        finite = is_finite(outputs)
    except Exception:  # noqa: BLE001 - one of them may be at fault: each is asked on its own
        finite = False
        outputs = []
    if not finite:
        return [_answer(waiting) for waiting in call]
    values: list[Any] = outputs.tolist() if isinstance(outputs, np.ndarray) else outputs
    answers: list[Outputs | Exception] = []
    position = 0
    for waiting in call:
        end = position + waiting.batch.rows
        answers.append(values[position:end])
        position = end
    return answers


def _answer(waiting: _Waiting) -> Outputs | Exception:
    try:
        outputs = waiting.model.predict(waiting.batch)
    except Exception as error:  # noqa: BLE001 - a model may raise anything; it is the answer to this request
        return error
    if not is_finite(outputs):
        rows = np.flatnonzero(~np.isfinite(np.asarray(outputs)).reshape(waiting.batch.rows, -1).all(axis=1))
        return Problem(422, f"the model has no finite answer to row {int(rows[0])}")
    if isinstance(outputs, np.ndarray) and waiting.batch.rows <= _SHORT:
        return outputs.tolist()
    return outputs
