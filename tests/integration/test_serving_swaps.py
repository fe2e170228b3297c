"""Fifty swaps under load, broken versions among them: no failed request, and every answer is its version's own."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.support.servers import Server
from tests.support.serving import ModelServer, Registry, model_server, small_pipeline

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800), pytest.mark.slow]

SWAPS = 50


@pytest.fixture(scope="module")
def registry(shared_mlflow: Server) -> Registry:
    made = Registry(shared_mlflow, "flights-swaps")
    made.alias(made.register(*small_pipeline(1)))
    return made


@pytest.fixture(scope="module")
def served(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with model_server(tmp_path_factory.mktemp("serving"), registry) as one:
        one.wait_version("1")
        yield one


class Client:
    """Asks different rows without a pause."""

    def __init__(self, served: ModelServer, seed: int, stop: threading.Event) -> None:
        self.answers: list[tuple[str, dict[str, Any], float]] = []
        self.failures: list[str] = []
        self._served, self._stop = served, stop
        self._random = np.random.default_rng(seed)
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with self._served.client() as client:
            while not self._stop.is_set():
                row = {
                    "distance": float(self._random.uniform(100, 2500)),
                    "hour": int(self._random.integers(0, 24)),
                    "carrier": str(self._random.choice(["UA", "B6", "DL", "ZZ"])),
                }
                answer = client.post("/invocations", json={"dataframe_records": [row]})
                if answer.status_code != 200:
                    self.failures.append(answer.text)
                else:
                    body = answer.json()
                    assert answer.headers["x-tidemill-model-version"] == body["version"]
                    self.answers.append((body["version"], row, body["predictions"][0][1]))


def test_fifty_swaps_under_load(registry: Registry, served: ModelServer) -> None:
    good = ["1", *(registry.register(*small_pipeline(seed)) for seed in (2, 3, 4))]
    pickled = registry.register(*small_pipeline(5), serialization_format="cloudpickle")
    other_contract = registry.register(*small_pipeline(6, ("distance", "hour", "carrier", "extra")))
    broken = itertools.cycle([pickled, other_contract])
    turns = itertools.cycle([good[1], good[2], good[3], "broken", good[0]])
    stop = threading.Event()
    clients = [Client(served, seed, stop) for seed in range(4)]
    for client in clients:
        client.thread.start()
    try:
        for turn in itertools.islice(turns, SWAPS):
            if turn == "broken":
                version = next(broken)
                registry.alias(version)
                served.wait(
                    lambda version=version: f"version {version} " in served.get("/readyz").json().get("error", "")
                )
            else:
                registry.alias(turn)
                served.wait_version(turn)
    finally:
        stop.set()
        for client in clients:
            client.thread.join()
    assert [client.failures for client in clients] == [[]] * 4
    answers = [answer for client in clients for answer in client.answers]
    assert {version for version, _, _ in answers} == set(good)
    for version in good:
        rows = [(row, told) for number, row, told in answers if number == version]
        right = registry.models[version].predict_proba(pd.DataFrame([row for row, _ in rows]))[:, 1]
        np.testing.assert_allclose([told for _, told in rows], right, rtol=0, atol=1e-6)
    assert "Traceback" not in served.log
