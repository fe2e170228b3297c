"""Adaptive micro-batching: requests which come while the model is busy are answered together by its next call.

An idle model is given what is there at once; nobody waits for a batch to fill. The model is called in a thread of its
own, so that the event loop goes on reading requests meanwhile; those make the next call. But a thread which calls a
model wants the interpreter's lock again after each piece of native code, a hundred times for a hundred trees, and the
loop and it fight for it: a model which is done within a millisecond or so is called where it stands, and then by more
requests at a time.
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
from typing import Any

import numpy as np

from ..http.errors import Problem
from ..settings import BatchSettings
from ..versions.in_flight import Leases
from ..versions.model import ServedModel
from .batch import COMPILED, Batch, Outputs, is_finite

__all__ = ["Batcher"]

_log = logging.getLogger(__name__)
_SHORT = 1024
_WEIGHT = 0.1
_QUICK_SECONDS = 0.0015
# Those which do nothing but compute; what others do in a call is unknown, they might wait for something.
_QUICK = COMPILED | {"sklearn"}
_TRIALS = 10


@dataclass(slots=True)
class _Waiting:
    model: ServedModel
    batch: Batch
    answered: Callable[[Outputs | Exception], None]


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
        self._computing_a_call = 0.0
        self._trials = 0
        self._tried: ServedModel | None = None
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
        self.ask(model, batch, functools.partial(_settle, answer))
        return answer

    def ask(self, model: ServedModel, batch: Batch, answered: Callable[[Outputs | Exception], None]) -> None:
        """Have `answered` called on the loop, later, with what a future of `submit` would hold; it must not raise."""
        self._leases.take(model)
        self._queue.append(_Waiting(model, batch, answered))
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
                self._answer(call, rows, _timed(call))
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
        """Tell whether a call is over soon enough for the loop to wait for it; the first ones show how it is."""
        return (
            model.engine.name in _QUICK
            and model is self._tried
            and rows <= self._rows
            and self._trials >= _TRIALS
            and self._computing_a_call < _QUICK_SECONDS
        )

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            made = _timed(call)
            try:
                self._loop.call_soon_threadsafe(self._done, call, made)
            except RuntimeError:
                # The loop is closed: nobody waits for an answer any more.
                return

    def _done(self, call: list[_Waiting], made: _Made) -> None:
        self._busy = False
        if self._queue:
            # First of all: the model is never idle while somebody waits.
            self._dispatch()
        self._answer(call, sum(waiting.batch.rows for waiting in call), made)

    def _answer(self, call: list[_Waiting], rows: int, made: _Made) -> None:
        for waiting, result in zip(call, made.results, strict=True):
            self._leases.give(waiting.model)
            try:
                waiting.answered(result)
            except Exception:  # noqa: BLE001 - the others must have theirs
                _log.exception("an answer was not taken")
        seconds = made.seconds
        if rows <= self._rows:
            if (model := call[0].model) is not self._tried:
                # Another version: how long it takes is not known yet.
                self._tried, self._trials = model, 0
            self._trials += 1
            weight = _WEIGHT if self._trials > 1 else 1.0
            self._seconds_a_call += weight * (seconds - self._seconds_a_call)
            self._computing_a_call += weight * (made.computing - self._computing_a_call)
        else:
            self._seconds_a_large_row += _WEIGHT * (seconds / rows - self._seconds_a_large_row)
        self._called(rows, seconds)


@dataclass(slots=True)
class _Made:
    """What a call of the model gave.

    Attributes:
        results: one a request.
        seconds: how long it took.
        computing: for how many of these it computed, and did not wait for the processor or the interpreter.
    """

    results: list[Outputs | Exception]
    seconds: float
    computing: float


def _timed(call: list[_Waiting]) -> _Made:
    started, computed = time.perf_counter(), time.thread_time()
    results = _answers(call)
    return _Made(results, time.perf_counter() - started, time.thread_time() - computed)


def _settle(answer: asyncio.Future[Outputs], result: Outputs | Exception) -> None:
    if answer.done():  # nobody waits any more
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)


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
