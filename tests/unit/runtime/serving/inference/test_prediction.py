"""Where answers are encoded: small ones in the event loop, large ones in a thread of their own."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from tidemill.runtime.common.settings import ListenSettings
from tidemill.runtime.serving.engines.outputs import normalise
from tidemill.runtime.serving.http.admission import Admission
from tidemill.runtime.serving.http.keys import Keys
from tidemill.runtime.serving.http.request_context import RequestContext
from tidemill.runtime.serving.inference.batch import Batch
from tidemill.runtime.serving.inference.batcher import Batcher
from tidemill.runtime.serving.inference.prediction import Inference
from tidemill.runtime.serving.protocols.base import DecodedRequest, EncodedResponse, InferenceResult
from tidemill.runtime.serving.settings import ServingSettings
from tidemill.runtime.serving.versions.alias_watcher import AliasWatcher
from tidemill.runtime.serving.versions.in_flight import InFlightCalls

from tests.unit.runtime.serving.codecs.test_answers import model_for

COUNT = 20_000
FORECAST: Any = normalise(np.zeros(COUNT), 1)


def threads_of(outputs: Any, *, by_request: bool) -> list[threading.Thread]:
    """Return the threads that encode the answer to one row, with a task and without one."""
    found: list[threading.Thread] = []
    model = model_for(outputs, by_request=by_request)

    def decode(*_: Any) -> DecodedRequest:
        def encode(_: InferenceResult) -> EncodedResponse:
            found.append(threading.current_thread())
            return EncodedResponse(b"{}")

        return DecodedRequest(Batch(1, [(1.0, 2.0, 3.0)]), encode)

    async def work() -> None:
        settings = ServingSettings(
            listen=ListenSettings(port=1, token_file=Path()), model="flights", path=Path(), cache=Path()
        )
        in_flight = InFlightCalls()
        batcher = Batcher(settings.batch, in_flight)
        watcher = cast("AliasWatcher", SimpleNamespace(current=model))
        admission = Admission(Keys("key"), settings.limits, batcher)
        with ThreadPoolExecutor(1) as executor:
            inference = Inference(settings, watcher, batcher, in_flight, admission, executor, None, None)
            await inference.answer(decode, RequestContext("/predict", {}, "1", 0.0, 0.0), b"{}")
            done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            inference.begin_answer(decode, RequestContext("/predict", {}, "2", 0.0, 0.0), b"{}", done.set_result)
            assert isinstance(await done, EncodedResponse)
            batcher.close()
            batcher.join(10)

    asyncio.run(work())
    assert len(found) == 2
    return found


@pytest.mark.parametrize(
    ("outputs", "by_request", "large"),
    [
        (np.zeros(1), False, False),
        (normalise(np.zeros(10), 1), True, False),
        (FORECAST, True, True),
        (np.zeros((1, COUNT)), False, True),
        ([[0.0] * COUNT], False, True),
        (normalise({"steps": [{"p": [0.5] * 100}] * 400}, 1), True, True),
        (normalise(["x" * 16 * COUNT], 1), False, True),
    ],
    ids=["number", "short forecast", "forecast", "probabilities", "list", "object", "text"],
)
def test_an_answer_of_many_values_is_not_encoded_in_the_event_loop(outputs: Any, by_request: bool, large: bool) -> None:
    for thread in threads_of(outputs, by_request=by_request):
        assert (thread is not threading.main_thread()) is large
