"""The real model server against a real MLflow with authentication."""

from __future__ import annotations

import json
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from tidemill.runtime.capture import join_labels, read_capture, read_labels

from tests.support.servers import mlflow_server
from tests.support.serving import MODEL, ModelServer, Registry, model_server, small_pipeline
from tests.support.steps import in_order

pytestmark = pytest.mark.integration

ROW = {"distance": 1400.0, "hour": 17, "carrier": "UA"}
TAGS = {"tidemill.lake.repository": "flights", "tidemill.lake.commit": "c0ffee", "tidemill.git.commit": "decade"}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield Registry(server)


@pytest.fixture(scope="module")
def served(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    # The registered model exists, as `tidemill up` makes it; the alias does not yet.
    registry.client.create_experiment(MODEL)
    registry.client.create_registered_model(MODEL)
    limits = {"body_bytes": 20_000, "rows": 50}
    with model_server(tmp_path_factory.mktemp("serving"), registry, limits=limits) as one:
        yield one


def expected(registry: Registry, version: str, rows: list[dict[str, Any]]) -> list[float]:
    import pandas as pd

    return registry.models[version].predict_proba(pd.DataFrame(rows))[:, 1].tolist()


def without_champion(served: ModelServer) -> None:
    served.wait(lambda: served.get("/readyz").json()["registry"] == "reachable")
    assert served.get("/readyz").status_code == 503
    with served.client() as client:
        answer = client.post("/invocations", json={"dataframe_records": [ROW]})
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert int(answer.headers["retry-after"]) > 0
        assert f'tidemill_champion_missing{{model="{MODEL}"}} 1.0' in client.get("/metrics").text


def late(answer: dict[str, Any]) -> list[float]:
    """Return the probabilities of class 1; as with MLflow, an answer has those of both classes."""
    return [score for _, score in answer["predictions"]]


def first_champion_answers_with_lineage(registry: Registry, served: ModelServer) -> None:
    version = registry.register(*small_pipeline(1), tags=TAGS)
    registry.alias(version)
    served.wait_version(version)
    state = served.get("/readyz").json()
    assert (state["lake_commit"], state["git_commit"], state["ready"]) == ("c0ffee", "decade", True)
    rows = [ROW, {"distance": 200, "hour": 5, "carrier": "B6"}]
    with served.client() as client:
        headers = {"x-request-id": "mine-1"}
        answer = client.post("/invocations", json={"dataframe_records": rows}, headers=headers)
        split = {
            "columns": ["carrier", "hour", "distance"],
            "data": [[r["carrier"], r["hour"], r["distance"]] for r in rows],
        }
        same = client.post("/invocations", json={"dataframe_split": split}).json()
        metrics = client.get("/metrics").text
    body = answer.json()
    assert late(body) == pytest.approx(expected(registry, version, rows)) == late(same)
    assert [sum(pair) for pair in body["predictions"]] == pytest.approx([1.0, 1.0])
    assert (body["model"], body["version"], body["client_request_id"]) == (MODEL, version, "mine-1")
    assert answer.headers["x-tidemill-model-version"] == version
    assert UUID(body["request_id"]).version == 7
    assert answer.headers["x-request-id"] == body["request_id"] != same["request_id"]
    assert f'tidemill_champion_missing{{model="{MODEL}"}} 0.0' in metrics
    info = f'alias="champion",git_commit="decade",lake_commit="c0ffee",model="{MODEL}",version="{version}"'
    assert f"tidemill_model_info{{{info}}} 1.0" in metrics


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "field"),
    [
        ("/invocations", {"dataframe_records": [ROW]}, {"Authorization": ""}, 401, None),
        ("/invocations", {"dataframe_records": [ROW]}, {"Authorization": "Bearer wrong"}, 401, None),
        ("/labels", {"labels": []}, {"Authorization": ""}, 401, None),
        ("/invocations", b"{", {}, 400, None),
        ("/invocations", b'{"dataframe_records": [{"distance": NaN, "hour": 1, "carrier": "UA"}]}', {}, 400, None),
        ("/invocations", {"dataframe_records": [ROW | {"distance": "far"}]}, {}, 422, "dataframe_records[0].distance"),
        ("/invocations", {"dataframe_records": [ROW] * 51}, {}, 413, None),
        ("/invocations", b" " * 20_001, {}, 413, None),
        ("/invocations", b" " * 200_000, {}, 413, None),
        ("/invocations", {"dataframe_records": [ROW]}, {"Content-Type": "application/xml"}, 415, None),
        ("/invocations", {"dataframe_records": [ROW]}, {"X-Request-Id": "x" * 200}, 400, None),
        ("/labels", {"labels": [{"request_id": "1", "row": 0, "label": 1}]}, {}, 422, "labels[0].request_id"),
    ],
)
def refusals_are_problem_documents(
    served: ModelServer, path: str, body: Any, headers: dict[str, str], status: int, field: str | None
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with served.client() as client:
        answer = client.post(path, content=content, headers={"Content-Type": "application/json", **headers})
    problem = answer.json()
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem["error"] == problem["detail"] != ""
    assert problem["request_id"] == answer.headers["x-request-id"]
    if field:
        assert problem["errors"][0]["field"] == field


def other_paths_and_metrics_are_closed(served: ModelServer) -> None:
    with served.client() as client:
        assert client.get("/metrics", headers={"Authorization": ""}).status_code == 401
        assert client.get("/nothing").headers["content-type"] == "application/problem+json"
        assert client.get("/invocations").status_code == 405
        assert client.get("/openapi.json", headers={"Authorization": ""}).status_code == 401


def the_capture_holds_what_was_sent_and_labels_find_it(registry: Registry, served: ModelServer) -> None:
    rows = [ROW, ROW | {"carrier": "B6", "distance": 3}]
    times = ["2013-07-01T12:00:00Z", "2013-07-01T14:30:00.25+02:00"]
    with served.client() as client:
        headers = {"x-request-id": "captured"}
        sent = {"dataframe_records": rows, "event_time": times}
        answer = client.post("/invocations", json=sent, headers=headers).json()
        key = {"request_id": answer["request_id"]}
        for label in (0, 1):
            # Sent twice: the later one counts.
            kept = client.post("/labels", json={"labels": [{**key, "row": 1, "label": label}]})
            assert (kept.status_code, kept.json()["accepted"]) == (200, 1)
            assert read_labels(served.capture).num_rows == 1, "acknowledged and not there"
    captured: list[dict[str, Any]] = []

    def written() -> bool:
        table = read_capture(served.capture, model=MODEL, version=answer["version"])
        if table is None:
            return False
        joined = join_labels(table, read_labels(served.capture)).to_pylist()
        captured[:] = [row for row in joined if row["request_id"] == answer["request_id"]]
        return len(captured) == 2

    served.wait(written)
    assert [row["features"] for row in captured] == rows
    assert [row["outputs"]["score"] for row in captured] == late(answer)
    assert [row["event_time"].isoformat() for row in captured] == [
        "2013-07-01T12:00:00+00:00",
        "2013-07-01T12:30:00.250000+00:00",
    ]
    assert [row["label"] for row in captured] == [None, 1.0]
    assert {(row["client_request_id"], row["role"]) for row in captured} == {("captured", "champion")}


def swap_under_load_fails_no_request(registry: Registry, served: ModelServer) -> None:
    first = served.get("/readyz").json()["version"]
    second = registry.register(*small_pipeline(2))
    right = {version: expected(registry, version, [ROW]) for version in (first, second)}
    assert abs(right[first][0] - right[second][0]) > 0.01
    answers: list[tuple[int, str, list[list[float]]]] = []
    stop = threading.Event()

    def send() -> None:
        with served.client() as client:
            while not stop.is_set():
                answer = client.post("/invocations", json={"dataframe_records": [ROW]})
                body = answer.json()
                answers.append((answer.status_code, body.get("version"), body.get("predictions")))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        registry.alias(second)
        served.wait_version(second)
        time.sleep(0.3)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert {status for status, _, _ in answers} == {200}
    assert {version for _, version, _ in answers} == {first, second}
    assert all([score for _, score in given] == pytest.approx(right[version]) for _, version, given in answers)


def broken_versions_never_replace_a_working_one(registry: Registry, served: ModelServer) -> None:
    works = served.get("/readyz").json()["version"]
    pickled = registry.register(*small_pipeline(3), serialization_format="cloudpickle")
    more = registry.register(*small_pipeline(3, ("distance", "hour", "carrier", "extra")))
    for version, reason in ((pickled, "pickle"), (more, "column extra is new and required")):
        registry.alias(version)
        served.wait(lambda version=version: f"version {version} " in served.get("/readyz").json().get("error", ""))
        state = served.get("/readyz")
        assert (state.status_code, state.json()["version"]) == (200, works)
        assert reason in state.json()["error"]
        assert f'tidemill_model_load_failed{{model="{MODEL}",version="{version}"}} 1.0' in served.get("/metrics").text
        attempts = served.log.count("a version could not be loaded")
        time.sleep(1)
        assert served.log.count("a version could not be loaded") == attempts, "tried again at every look"
    registry.alias(works)
    served.wait(lambda: "error" not in served.get("/readyz").json())


def without_its_alias_the_last_version_serves(registry: Registry, served: ModelServer) -> None:
    version = served.get("/readyz").json()["version"]

    def state() -> dict[str, Any]:
        return served.get("/readyz").json()

    def metric(name: str) -> float:
        found = re.search(rf"^{name}{{[^}}]*}} (.+)$", served.get("/metrics").text, re.MULTILINE)
        assert found, name
        return float(found[1])

    assert (state()["degraded"], metric("tidemill_alias_missing")) == (False, 0)
    registry.client.delete_registered_model_alias(MODEL, "champion")
    served.wait(lambda: state()["degraded"])
    assert served.stop() in (0, -signal.SIGTERM)
    served.start()
    served.wait_version(version)
    served.wait(lambda: "no alias champion" in state().get("error", ""))
    assert served.get("/readyz").status_code == 200
    with served.client() as client:
        answer = client.post("/invocations", json={"dataframe_records": [ROW]}).json()
    assert late(answer) == pytest.approx(expected(registry, version, [ROW]))
    # A retraining starts only if the model never had a champion.
    assert (metric("tidemill_alias_missing"), metric("tidemill_champion_missing")) == (1, 0)
    assert not state()["awaits_first_version"]

    registry.client.delete_model_version(MODEL, version)
    served.wait(lambda: f"version {version}, which still serves, was deleted" in state()["error"])

    # A new container has no cache; the registry remembers that a version was promoted.
    other = registry.register(*small_pipeline(4))
    assert served.stop() in (0, -signal.SIGTERM)
    shutil.rmtree(served.folder / "cache")
    served.start()
    served.wait(lambda: state()["awaits_first_version"])
    assert (metric("tidemill_alias_missing"), metric("tidemill_champion_missing")) == (0, 1)
    registry.client.set_model_version_tag(MODEL, other, "tidemill.gate.verdict", "accepted")
    served.wait(lambda: not state()["awaits_first_version"])
    assert (metric("tidemill_alias_missing"), metric("tidemill_champion_missing")) == (1, 0)
    assert served.get("/readyz").status_code == 503
    registry.alias(other)
    served.wait_version(other)
    assert (state()["degraded"], metric("tidemill_alias_missing")) == (False, 0)


def drain_then_registry_down(registry: Registry, served: ModelServer) -> None:
    """The last test: it ends the registry."""
    version = served.get("/readyz").json()["version"]

    def half_way() -> Iterator[bytes]:
        body = json.dumps({"dataframe_records": [ROW]}).encode()
        yield body[:20]
        time.sleep(0.2)
        assert served.process
        served.process.terminate()
        time.sleep(0.3)
        yield body[20:]

    with served.client() as client:
        headers = {"Content-Type": "application/json"}
        last = client.post("/invocations", content=half_way(), headers=headers).raise_for_status().json()
    # At once, before the segment is due.
    assert served.stop() in (0, -signal.SIGTERM), served.log[-2000:]
    table = read_capture(served.capture)
    assert table is not None
    assert last["request_id"] in table["request_id"].to_pylist(), "the drain lost what was captured"
    served.start()
    served.wait_version(version)
    registry.server.stop()
    served.wait(lambda: served.get("/readyz").json()["registry"] == "unreachable")
    with served.client() as client:
        assert client.post("/invocations", json={"dataframe_records": [ROW]}).status_code == 200
    served.kill()
    served.start()
    served.wait_version(version)
    with served.client() as client:
        answer = client.post("/invocations", json={"dataframe_records": [ROW]}).json()
    assert late(answer) == pytest.approx(expected(registry, version, [ROW]))
    assert "Traceback" not in served.log


test_a_server_from_its_first_champion_to_its_end = in_order(
    without_champion,
    first_champion_answers_with_lineage,
    refusals_are_problem_documents,
    other_paths_and_metrics_are_closed,
    the_capture_holds_what_was_sent_and_labels_find_it,
    swap_under_load_fails_no_request,
    broken_versions_never_replace_a_working_one,
    without_its_alias_the_last_version_serves,
    drain_then_registry_down,
)
