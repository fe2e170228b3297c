"""Micro-batching: who is answered together, by which version, and whom another one's mistake touches."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, cast

import numpy as np
import pytest
from tidemill.runtime.serving.http.admission import Admission
from tidemill.runtime.serving.http.errors import Problem
from tidemill.runtime.serving.http.keys import Keys
from tidemill.runtime.serving.inference import batcher as batching
from tidemill.runtime.serving.inference.batch import Batch
from tidemill.runtime.serving.inference.batcher import Batcher
from tidemill.runtime.serving.settings import BatchSettings, LimitSettings
from tidemill.runtime.serving.versions.in_flight import Leases
from tidemill.runtime.serving.versions.model import ServedModel

from tests.support.toy_model import ToyModel


def batch(*values: float) -> Batch:
    return Batch(len(values), [(value,) for value in values])


def run(work: Callable[[Batcher, Leases], Awaitable[None]], **settings: Any) -> None:
    async def inside() -> None:
        leases = Leases()
        batcher = Batcher(BatchSettings(**settings), leases)
        try:
            await work(batcher, leases)
        finally:
            batcher.close()
            batcher.join(10)

    asyncio.run(inside())


async def entered(model: ToyModel) -> None:
    assert await asyncio.to_thread(model.entered.acquire, timeout=30)


def as_served(model: ToyModel) -> ServedModel:
    return cast("ServedModel", model)


def test_an_idle_model_is_asked_at_once_and_a_busy_one_by_all_who_waited() -> None:
    async def work(batcher: Batcher, _: Leases) -> None:
        model = ToyModel()
        model.gate.clear()
        first = batcher.submit(as_served(model), batch(1))
        await entered(model)
        others = [batcher.submit(as_served(model), batch(value, value + 0.5)) for value in (2, 3, 4)]
        assert batcher.waiting_rows == 6
        model.gate.set()
        assert list(await first) == [2]
        assert [list(await other) for other in others] == [[4, 5], [6, 7], [8, 9]]
        assert model.calls == [[1], [2, 2.5, 3, 3.5, 4, 4.5]]
        assert batcher.waiting_rows == 0

    run(work)


def test_a_call_has_no_more_rows_than_it_may() -> None:
    async def work(batcher: Batcher, _: Leases) -> None:
        model = ToyModel()
        model.gate.clear()
        waiting = [batcher.submit(as_served(model), batch(0))]
        await entered(model)
        waiting += [batcher.submit(as_served(model), batch(*range(size))) for size in (3, 1, 2, 9, 1)]
        model.gate.set()
        await asyncio.gather(*waiting)
        # Nine rows of one request are more than four: they go alone, in their turn.
        assert [len(call) for call in model.calls] == [1, 4, 2, 9, 1]

    run(work, rows=4)


def test_versions_are_not_mixed_in_a_call() -> None:
    async def work(batcher: Batcher, _: Leases) -> None:
        old, new = ToyModel("1"), ToyModel("2", lambda values: -values)
        old.gate.clear()
        first = batcher.submit(as_served(old), batch(1))
        await entered(old)
        second, third = batcher.submit(as_served(old), batch(2)), batcher.submit(as_served(new), batch(3))
        old.gate.set()
        assert [list(await answer) for answer in (first, second, third)] == [[2], [4], [-3]]
        assert (old.calls, new.calls) == ([[1], [2]], [[3]])

    run(work)


def test_a_model_which_may_not_be_asked_together_is_asked_one_by_one() -> None:
    async def work(batcher: Batcher, _: Leases) -> None:
        model = ToyModel()
        model.engine.mergeable = False
        model.gate.clear()
        waiting = [batcher.submit(as_served(model), batch(value)) for value in (1, 2, 3)]
        model.gate.set()
        await asyncio.gather(*waiting)
        assert model.calls == [[1], [2], [3]]

    run(work)


def poisoned(values: Any) -> Any:
    if (values < 0).any():
        raise ValueError("negative")
    return np.where(values > 100, np.inf, values)


def test_one_request_which_the_model_cannot_take_does_not_touch_the_others() -> None:
    async def work(batcher: Batcher, _: Leases) -> None:
        model = ToyModel("1", poisoned)
        model.gate.clear()
        first = batcher.submit(as_served(model), batch(0))
        await entered(model)
        good, bad, endless, fine = (
            batcher.submit(as_served(model), batch(*values)) for values in ((1,), (2, -1), (3, 4, 500), (5,))
        )
        model.gate.set()
        assert [list(await answer) for answer in (first, good, fine)] == [[0], [1], [5]]
        with pytest.raises(ValueError, match="negative"):
            await bad
        with pytest.raises(Problem, match="no finite answer to row 2") as refused:
            await endless
        assert refused.value.status == 422

    run(work)


def test_a_version_is_closed_when_its_last_call_is_over() -> None:
    async def work(batcher: Batcher, leases: Leases) -> None:
        model, unused = ToyModel(), ToyModel("2")
        leases.retire(as_served(unused))
        assert unused.closed
        model.gate.clear()
        answers = [batcher.submit(as_served(model), batch(1))]
        await entered(model)
        answers.append(batcher.submit(as_served(model), batch(2)))
        leases.retire(as_served(model))
        assert not model.closed
        model.gate.set()
        await asyncio.gather(*answers)
        assert model.closed

    run(work)


def test_a_client_which_left_is_no_trouble() -> None:
    async def work(batcher: Batcher, _: Leases) -> None:
        model = ToyModel()
        model.gate.clear()
        gone = batcher.submit(as_served(model), batch(1))
        await entered(model)
        stays = batcher.submit(as_served(model), batch(2))
        gone.cancel()
        model.gate.set()
        assert list(await stays) == [4]

    run(work)


def test_what_would_wait_too_long_is_turned_away() -> None:
    async def work(batcher: Batcher, _: Leases) -> None:
        admission = Admission(Keys("token"), LimitSettings(queue_rows=5), batcher)
        model = ToyModel()
        admission.check_queue()
        model.gate.clear()
        waiting = [batcher.submit(as_served(model), batch(0))]
        await entered(model)
        for _ in range(5):
            admission.check_queue()
            waiting.append(batcher.submit(as_served(model), batch(1)))
        with pytest.raises(Problem) as refused:
            admission.check_queue()
        assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "1")
        model.gate.set()
        await asyncio.gather(*waiting)
        admission.check_queue()

    run(work)


def test_the_expected_wait_follows_the_calls_of_late() -> None:
    async def work(batcher: Batcher, _: Leases) -> None:
        model = ToyModel()
        assert batcher.expected_wait == 0
        for _ in range(3):
            await batcher.submit(as_served(model), batch(1))
        model.gate.clear()
        waiting = [batcher.submit(as_served(model), batch(0))]
        await entered(model)
        waiting += [batcher.submit(as_served(model), batch(1)) for _ in range(2)]
        short = batcher.expected_wait
        waiting += [batcher.submit(as_served(model), batch(1)) for _ in range(200)]
        assert batcher.expected_wait > short
        model.gate.set()
        await asyncio.gather(*waiting)
        assert batcher.expected_wait == 0

    run(work, rows=2)


def test_keys_and_requests_under_way_are_bounded() -> None:
    async def work(batcher: Batcher, _: Leases) -> None:
        admission = Admission(Keys("token"), LimitSettings(per_key=2, concurrency=3), batcher)
        for headers in (
            {},
            {b"authorization": b"Bearer wrong"},
            {b"authorization": b"Basic token"},
            {b"x-api-key": b""},
        ):
            with pytest.raises(Problem) as refused:
                admission.enter(headers)
            assert refused.value.status == 401
        entered = [admission.enter({b"authorization": b"Bearer token"}), admission.enter({b"x-api-key": b"token"})]
        with pytest.raises(Problem) as refused:
            admission.enter({b"x-api-key": b"token"})
        assert refused.value.status == 429
        for name in entered:
            admission.leave(name)
        assert admission.requests == 0
        admission.leave(admission.enter({b"x-api-key": b"token"}))

    run(work)


@pytest.mark.parametrize("engine", ["treelite", "sklearn"])
def test_a_quick_model_is_called_on_the_loop_and_a_slow_one_in_its_thread(
    monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    async def work(batcher: Batcher, leases: Leases) -> None:
        threads: list[str] = []

        def compute(values: Any) -> Any:
            threads.append(threading.current_thread().name)
            return values

        model = ToyModel("1", compute)
        model.engine.name = engine
        monkeypatch.setattr(batching, "_QUICK_SECONDS", 60.0)
        for value in range(40):
            assert list(await batcher.submit(as_served(model), batch(value))) == [value]
        here = threading.current_thread().name
        assert threads[0] == "model", "nobody knows yet how long it takes"
        assert threads[-1] == here
        together = [batcher.submit(as_served(model), batch(value)) for value in (1, 2, 3)]
        assert [list(await answer) for answer in together] == [[1], [2], [3]]
        assert model.calls[-1] == [1, 2, 3]
        other = ToyModel("2", compute)
        other.engine.name = engine
        await batcher.submit(as_served(other), batch(1))
        assert threads[-1] == "model", "of another version nobody knows it either"
        for value in range(40):
            await batcher.submit(as_served(model), batch(value))
        assert threads[-1] == here
        monkeypatch.setattr(batching, "_QUICK_SECONDS", 0.0)
        await batcher.submit(as_served(model), batch(1))
        assert threads[-1] == "model", "no call is as quick as that"
        leases.retire(as_served(model))
        assert model.closed

    run(work)


def test_what_a_model_of_another_kind_does_in_a_call_is_unknown_so_it_has_its_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work(batcher: Batcher, _: Leases) -> None:
        threads: set[str] = set()

        def compute(values: Any) -> Any:
            threads.add(threading.current_thread().name)
            return values

        model = ToyModel("1", compute)
        model.engine.name = "pyfunc"
        monkeypatch.setattr(batching, "_QUICK_SECONDS", 60.0)
        for value in range(40):
            await batcher.submit(as_served(model), batch(value))
        assert threads == {"model"}

    run(work)


def test_an_answer_which_nobody_can_take_does_not_touch_the_others() -> None:
    async def work(batcher: Batcher, leases: Leases) -> None:
        def broken(_: object) -> None:
            raise RuntimeError("the connection is gone")

        model = ToyModel()
        batcher.ask(as_served(model), batch(1), broken)
        assert list(await batcher.submit(as_served(model), batch(2))) == [4]
        leases.retire(as_served(model))
        assert model.closed

    run(work)
