"""Micro-batching: who is answered together, by which version, and whom another one's mistake touches."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, cast

import numpy as np
import pytest
from tidemill.runtime.serving.engines.outputs import Answer, AnswerError
from tidemill.runtime.serving.http.admission import Admission
from tidemill.runtime.serving.http.errors import Problem
from tidemill.runtime.serving.http.keys import Keys
from tidemill.runtime.serving.inference import batcher as batching
from tidemill.runtime.serving.inference.batch import Batch
from tidemill.runtime.serving.inference.batcher import Batcher
from tidemill.runtime.serving.settings import BatchSettings, LimitSettings
from tidemill.runtime.serving.versions.in_flight import InFlightCalls
from tidemill.runtime.serving.versions.model import ServedModel

from tests.support.toy_model import ToyModel


def batch(*values: float) -> Batch:
    return Batch(len(values), [(value,) for value in values])


def run(
    work: Callable[[Batcher, InFlightCalls], Awaitable[None]], *, refuse_non_finite: bool = False, **settings: Any
) -> None:
    async def inside() -> None:
        in_flight = InFlightCalls()
        batcher = Batcher(BatchSettings(**settings), in_flight, refuse_non_finite=refuse_non_finite)
        try:
            await work(batcher, in_flight)
        finally:
            batcher.close()
            batcher.join(10)

    asyncio.run(inside())


async def entered(model: ToyModel) -> None:
    assert await asyncio.to_thread(model.entered.acquire, timeout=30)


def as_served(model: ToyModel) -> ServedModel:
    return cast("ServedModel", model)


def test_an_idle_model_is_asked_at_once_and_a_busy_one_by_all_who_waited() -> None:
    async def work(batcher: Batcher, _: InFlightCalls) -> None:
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
    async def work(batcher: Batcher, _: InFlightCalls) -> None:
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
    async def work(batcher: Batcher, _: InFlightCalls) -> None:
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
    async def work(batcher: Batcher, _: InFlightCalls) -> None:
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
    async def work(batcher: Batcher, _: InFlightCalls) -> None:
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
        with pytest.raises(Problem, match="no finite output for row 2") as refused:
            await endless
        assert refused.value.status == 422

    run(work, refuse_non_finite=True)


def test_infinities_are_returned_and_no_request_is_run_again_for_them() -> None:
    async def work(batcher: Batcher, _: InFlightCalls) -> None:
        model = ToyModel("1", poisoned)
        model.gate.clear()
        first = batcher.submit(as_served(model), batch(0))
        await entered(model)
        endless, fine = batcher.submit(as_served(model), batch(3, 500)), batcher.submit(as_served(model), batch(5))
        model.gate.set()
        assert [list(await each) for each in (first, endless, fine)] == [[0], [3, np.inf], [5]]
        assert model.calls == [[0], [3, 500, 5]]

    run(work)


def test_rows_of_a_frame_are_given_to_the_requests_that_sent_them() -> None:
    def frame(values: Any) -> Answer:
        return Answer(
            "frame", ["n", "text"], [values.astype("int64"), [f"v{value:g}" for value in values]], len(values)
        )

    async def work(batcher: Batcher, _: InFlightCalls) -> None:
        model = ToyModel("1", frame)
        model.gate.clear()
        first = batcher.submit(as_served(model), batch(0))
        await entered(model)
        others = [batcher.submit(as_served(model), batch(*values)) for values in ((1, 2), (3,))]
        model.gate.set()
        await first
        answers = [cast("Answer", await other) for other in others]
        assert [answer.to_rows() for answer in answers] == [
            [{"n": 1, "text": "v1"}, {"n": 2, "text": "v2"}],
            [{"n": 3, "text": "v3"}],
        ]
        assert model.calls == [[0], [1, 2, 3]]

    run(work)


def test_an_answer_without_a_value_for_each_row_of_a_merged_call_is_asked_for_separately() -> None:
    def forecast(values: Any) -> Answer:
        return Answer("value", (), [[float(values.sum()), 1.0]], None)

    async def work(batcher: Batcher, _: InFlightCalls) -> None:
        model = ToyModel("1", forecast)
        model.gate.clear()
        first = batcher.submit(as_served(model), batch(0))
        await entered(model)
        others = [batcher.submit(as_served(model), batch(*values)) for values in ((1, 2), (4,))]
        model.gate.set()
        await first
        assert [cast("Answer", await other).to_mlflow() for other in others] == [[3.0, 1.0], [4.0, 1.0]]
        assert model.calls == [[0], [1, 2, 4], [1, 2], [4]]

    run(work)


def test_an_object_that_no_protocol_represents_is_an_error_that_names_it() -> None:
    def broken(_: Any) -> Any:
        raise AnswerError.of(1j)

    async def work(batcher: Batcher, _: InFlightCalls) -> None:
        with pytest.raises(Problem, match="the model returned a complex, which is not a table") as refused:
            await batcher.submit(as_served(ToyModel("1", broken)), batch(1))
        assert refused.value.status == 500

    run(work)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (Answer("frame", ["a", "b"], [np.array([1.0, 2.0]), ["x", None]], 2), None),
        (Answer("frame", ["a", "b"], [np.array([1.0, 2.0]), [0.5, np.nan]], 2), "for row 1"),
        (Answer("targets", (), [np.array([[0.5, 0.5], [1, 0]]), np.array([[np.inf, 0], [1, 0]])], 2), "for row 0"),
        (Answer("score", (), [np.array([np.nan, 0.0]), np.array([0.0, 1.0])], 2), None),
        (Answer("value", (), [{"a": [1.0, {"b": np.nan}]}], None), "the model's answer has a value that is not finite"),
        (Answer("value", (), [np.array([[1, 2], [3, 4]])], 2), None),
        ([1.5, float("nan")], "for row 1"),
        # Beside texts, NaN is a missing text.
        (["x", float("nan")], None),
    ],
)
def test_non_finite_outputs_of_every_form_are_refused(outputs: Any, message: str | None) -> None:
    async def work(batcher: Batcher, _: InFlightCalls) -> None:
        answer = batcher.submit(as_served(ToyModel("1", lambda _: outputs)), batch(1, 2))
        if message is None:
            assert await answer is outputs
            return
        with pytest.raises(Problem, match=message) as refused:
            await answer
        assert refused.value.status == 422

    run(work, refuse_non_finite=True)


def test_a_version_is_closed_when_its_last_call_is_over() -> None:
    async def work(batcher: Batcher, in_flight: InFlightCalls) -> None:
        model, unused = ToyModel(), ToyModel("2")
        in_flight.retire(as_served(unused))
        assert unused.closed
        model.gate.clear()
        answers = [batcher.submit(as_served(model), batch(1))]
        await entered(model)
        answers.append(batcher.submit(as_served(model), batch(2)))
        in_flight.retire(as_served(model))
        assert not model.closed
        model.gate.set()
        await asyncio.gather(*answers)
        assert model.closed

    run(work)


def test_a_client_which_left_is_no_trouble() -> None:
    async def work(batcher: Batcher, _: InFlightCalls) -> None:
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
    async def work(batcher: Batcher, _: InFlightCalls) -> None:
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
    async def work(batcher: Batcher, _: InFlightCalls) -> None:
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
    async def work(batcher: Batcher, _: InFlightCalls) -> None:
        admission = Admission(Keys("token"), LimitSettings(per_key=2, concurrency=3), batcher)
        for headers in (
            {},
            {b"authorization": b"Bearer wrong"},
            {b"authorization": b"Basic token"},
            {b"x-api-key": b""},
        ):
            with pytest.raises(Problem) as refused:
                admission.admit(headers)
            assert refused.value.status == 401
        entered = [admission.admit({b"authorization": b"Bearer token"}), admission.admit({b"x-api-key": b"token"})]
        with pytest.raises(Problem) as refused:
            admission.admit({b"x-api-key": b"token"})
        assert refused.value.status == 429
        for name in entered:
            admission.release(name)
        assert admission.requests == 0
        admission.release(admission.admit({b"x-api-key": b"token"}))

    run(work)


@pytest.mark.parametrize("engine", ["treelite", "sklearn"])
def test_a_quick_model_is_called_on_the_loop_and_a_slow_one_in_its_thread(
    monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    async def work(batcher: Batcher, in_flight: InFlightCalls) -> None:
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
        in_flight.retire(as_served(model))
        assert model.closed

    run(work)


def test_what_a_model_of_another_kind_does_in_a_call_is_unknown_so_it_has_its_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work(batcher: Batcher, _: InFlightCalls) -> None:
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
    async def work(batcher: Batcher, in_flight: InFlightCalls) -> None:
        def broken(_: object) -> None:
            raise RuntimeError("the connection is gone")

        model = ToyModel()
        batcher.enqueue(as_served(model), batch(1), broken)
        assert list(await batcher.submit(as_served(model), batch(2))) == [4]
        in_flight.retire(as_served(model))
        assert model.closed

    run(work)
