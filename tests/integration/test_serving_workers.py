"""Several workers on one port, a shadow, keys, and the ends of a server."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tidemill.runtime.capture import read_capture
from tidemill.runtime.serving.http.key_file import add_key, revoke_key

from tests.support.servers import Server
from tests.support.serving import ModelServer, Registry, model_server, small_pipeline
from tests.support.steps import in_order

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

ROW = {"distance": 1400.0, "hour": 17, "carrier": "UA"}
BODY = {"dataframe_records": [ROW]}


@pytest.fixture(scope="module")
def registry(shared_mlflow: Server) -> Registry:
    made = Registry(shared_mlflow, "flights-workers")
    made.alias(made.register(*small_pipeline(1)))
    return made


@pytest.fixture(scope="module")
def served(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp("serving")
    overrides = {"workers": 2, "shadow": "challenger", "keys_file": str(folder / "keys.json")}
    with model_server(folder, registry, **overrides) as one:
        one.wait(lambda: all_serve(one, "1"))
        yield one


def workers(served: ModelServer) -> list[dict[str, Any]]:
    return served.get("/readyz").json().get("workers", [])


def all_serve(served: ModelServer, version: str) -> bool:
    return [worker["version"] for worker in workers(served)] == [version, version]


def family(served: ModelServer) -> list[psutil.Process]:
    assert served.process
    return psutil.Process(served.process.pid).children(recursive=True)


def metric(served: ModelServer, name: str) -> float:
    """Return the sum over the series of `name`."""
    lines = served.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{"))


class Load:
    """Clients which ask without a pause, each over connections of its own; what they were told is kept."""

    def __init__(self, served: ModelServer, clients: int = 4) -> None:
        self.answers: list[tuple[int, str, float]] = []
        self.broken: list[str] = []
        self._served = served
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def _run(self) -> None:
        with self._served.client() as client:
            while not self._stop.is_set():
                try:
                    answer = client.post("/invocations", json=BODY)
                except httpx.TransportError as error:
                    self.broken.append(repr(error))
                    continue
                body = answer.json()
                self.answers.append(
                    (answer.status_code, body.get("version", ""), body.get("predictions", [[0.0, -1.0]])[0][1])
                )

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def expected(registry: Registry, version: str) -> float:
    import pandas as pd

    return float(registry.models[version].predict_proba(pd.DataFrame([ROW]))[0, 1])


def metrics_are_those_of_all_workers(served: ModelServer) -> None:
    before = metric(served, "tidemill_requests_total")
    asked: dict[int, int] = {}
    # A connection stays with the worker which took it: many of them reach both.
    for _ in range(40):
        with served.client() as client:
            client.post("/invocations", json=BODY).raise_for_status()
    served.wait(lambda: metric(served, "tidemill_requests_total") == before + 40)
    with served.client() as client:
        for worker in client.get("/status").raise_for_status().json()["workers"]:
            asked[worker["pid"]] = worker["requests"]
    assert len(asked) == 2
    assert metric(served, "tidemill_workers") == 2


def all_workers_swap_and_no_request_fails(registry: Registry, served: ModelServer) -> None:
    version = registry.register(*small_pipeline(2))
    with Load(served) as load:
        registry.alias(version)
        served.wait(lambda: all_serve(served, version))
        time.sleep(0.3)
    right = {number: expected(registry, number) for number in ("1", version)}
    assert load.broken == []
    assert {status for status, _, _ in load.answers} == {200}
    assert {told for _, told, _ in load.answers} == {"1", version}
    assert all(value == pytest.approx(right[told], abs=1e-6) for _, told, value in load.answers)
    prepared = list((served.folder / "cache" / served.model).glob("*/prepared.json"))
    assert len(prepared) == 2, "a version is prepared once for all workers"


def a_killed_worker_comes_back_while_the_other_answers(served: ModelServer) -> None:
    # Workers tell each other once a second what they counted; what a killed one had not told is lost.
    time.sleep(1.5)
    before = metric(served, "tidemill_requests_total")
    victim = workers(served)[0]["pid"]
    with Load(served) as load:
        os.kill(victim, signal.SIGKILL)
        lost = len(load.answers) + 4
        served.wait(lambda: victim not in [worker["pid"] for worker in workers(served)] and len(workers(served)) == 2)
        served.wait(lambda: all(worker["version"] for worker in workers(served)))
    # Its connections broke, and what was under way on them: one at the most for each client.
    assert len(load.broken) <= 4, load.broken
    assert {status for status, _, _ in load.answers} == {200}
    served.wait(lambda: metric(served, "tidemill_requests_total") >= before + len(load.answers) - lost)


def the_shadow_is_asked_the_same_and_answers_nobody(registry: Registry, served: ModelServer) -> None:
    with served.client() as client:
        champion = client.post("/invocations", json=BODY).raise_for_status().json()["version"]
    challenger = registry.register(*small_pipeline(5))
    registry.client.set_registered_model_alias(registry.model, "challenger", challenger)
    served.wait(lambda: served.get("/readyz").json().get("shadow") == challenger)
    told: list[str] = []

    def compared() -> bool:
        with served.client() as client:
            told.append(client.post("/invocations", json=BODY).raise_for_status().json()["version"])
        return metric(served, "tidemill_shadow_rows_total") >= 3

    served.wait(compared)
    assert set(told) == {champion}
    # The other worker may be asked this time, which hears of it within a second.
    served.wait(lambda: metric(served, "tidemill_shadow_difference_count") >= 3)
    pairs: dict[str, dict[str, Any]] = {}

    def captured() -> bool:
        table = read_capture(served.capture)
        assert table is not None
        pairs.clear()
        for row in table.to_pylist():
            pairs.setdefault(row["request_id"], {})[row["role"]] = row
        return sum(1 for pair in pairs.values() if set(pair) == {"champion", "shadow"}) >= 3

    served.wait(captured)
    for pair in pairs.values():
        # The two are in segments of their own, and one may be written before the other.
        if set(pair) == {"champion", "shadow"}:
            assert pair["shadow"]["version"] == challenger
            assert pair["shadow"]["features"] == pair["champion"]["features"]
            assert pair["shadow"]["outputs"]["score"] == pytest.approx(expected(registry, challenger), abs=1e-6)
            assert pair["champion"]["outputs"]["score"] == pytest.approx(expected(registry, champion), abs=1e-6)
    with served.client() as client:
        shadow = client.get("/status").json()["shadow"]
    assert (shadow["alias"], shadow["version"]) == ("challenger", challenger)


def named_keys_open_and_are_revoked_without_a_restart(served: ModelServer) -> None:
    file = served.folder / "keys.json"

    def status(key: str) -> int:
        headers = {"X-API-Key": key}
        return httpx.post(f"{served.url}/invocations", json=BODY, headers=headers, trust_env=False).status_code

    key = add_key(file, "mobile")
    served.wait(lambda: all(status(key) == 200 for _ in range(6)))
    served.wait(lambda: '"key":"mobile"' in served.log)
    revoke_key(file, "mobile")
    served.wait(lambda: all(status(key) == 401 for _ in range(6)))
    assert key not in served.log
    assert key not in file.read_text()


def the_access_log_has_no_features(served: ModelServer) -> None:
    with served.client() as client:
        answer = client.post(
            "/invocations",
            json={"dataframe_records": [ROW | {"carrier": "Secretive"}]},
            headers={"x-request-id": "log"},
        )
    served.wait(lambda: f'"request_id":"{answer.json()["request_id"]}"' in served.log)
    assert "Secretive" not in served.log
    assert '"distance"' not in served.log
    assert "1400.0" not in served.log


def no_child_is_left(served: ModelServer) -> None:
    before = family(served)
    assert len(before) >= 2
    assert served.stop() == 0, served.log[-2000:]
    assert not [child for child in before if child.is_running()]
    served.start()
    served.wait(lambda: len(workers(served)) == 2)
    before = family(served)
    served.kill()
    _, alive = psutil.wait_procs(before, timeout=30)
    assert not alive, "workers outlived their parent"
    assert "Traceback" not in served.log
    assert not list(Path(served.folder).glob("core*"))
    served.start()


test_workers_a_shadow_keys_and_the_end = in_order(
    metrics_are_those_of_all_workers,
    all_workers_swap_and_no_request_fails,
    a_killed_worker_comes_back_while_the_other_answers,
    the_shadow_is_asked_the_same_and_answers_nobody,
    named_keys_open_and_are_revoked_without_a_restart,
    the_access_log_has_no_features,
    no_child_is_left,
)
