"""The circle, turned once unattended on real flights: the same code on every target which can run here.

A test module has a fixture `platform`, and `test_circle = circle`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
import pytest

from tests.support.platform import RunningPlatform, git, wait_for
from tests.support.steps import in_order

P = TypeVar("P", bound=RunningPlatform)

FLIGHT = {
    "hour": 18.0,
    "distance": 1400.0,
    "weekday": 4.0,
    "carrier": "B6",
    "origin": "JFK",
    "temp": 39.0,
    "dewp": 28.0,
    "humid": 64.4,
    "wind_speed": 12.7,
    "precip": 0.0,
    "pressure": 1011.9,
    "visib": 10.0,
}


@contextmanager
def standing(platform: P) -> Iterator[P]:
    """Bring `platform` up; at the end destroy it, and look that nothing is left."""
    try:
        platform.up()
        yield platform
    finally:
        platform.close()
    platform.assert_gone()


def ready(platform: RunningPlatform) -> dict[str, Any]:
    with platform.client("serving-flights") as client:
        answer = client.get("/readyz")
        return {**answer.json(), "code": answer.status_code}


def ask(platform: RunningPlatform) -> dict[str, Any]:
    """Ask the model once and return what it says."""
    with platform.client("serving-flights", secret="serving-flights-key") as client:
        answer = client.post("/invocations", json={"dataframe_records": [FLIGHT]}, headers={"X-Request-Id": "mine"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"] != "mine"
    return answer.json()


def alerts(platform: RunningPlatform) -> set[str]:
    with platform.client("alertmanager", user="admin", secret="alertmanager-admin") as client:
        return {alert["labels"]["alertname"] for alert in client.get("/api/v2/alerts").raise_for_status().json()}


def retrainings(platform: RunningPlatform) -> list[dict[str, Any]]:
    answer = platform.operations().ask("retraining", "/status", token="retraining-token")
    assert answer is not None
    assert answer[0] == 200
    return json.loads(answer[1])["retrainings"]


def up_ends_with_a_model_that_answers(platform: RunningPlatform) -> None:
    state = ready(platform)
    assert state["code"] == 200
    assert state["version"] == "1"
    body = ask(platform)
    ((no, yes),) = body["predictions"]
    assert 0.0 < yes < 1.0
    assert no + yes == pytest.approx(1.0)
    assert body["version"] == "1"
    assert body["model"] == "flights"


def a_wrong_key_and_a_wrong_type_are_refused(platform: RunningPlatform) -> None:
    with platform.client("serving-flights") as client:
        assert client.post("/invocations", json={"dataframe_records": [FLIGHT]}).status_code == 401
        assert client.get("/metrics").status_code == 401
    with platform.client("serving-flights", secret="serving-flights-key") as client:
        wrong = client.post("/invocations", json={"dataframe_records": [{**FLIGHT, "distance": "far"}]})
        assert wrong.status_code == 422
        assert wrong.headers["content-type"].startswith("application/problem+json")
        assert "distance" in wrong.text


def every_service_is_scraped(platform: RunningPlatform) -> None:
    def down() -> list[str] | None:
        with platform.client("prometheus", user="admin", secret="prometheus-admin") as client:
            targets = client.get("/api/v1/targets").raise_for_status().json()["data"]["activeTargets"]
        unhealthy = [f"{t['labels']['job']}: {t['lastError']}" for t in targets if t["health"] != "up"]
        names = {t["labels"]["job"] for t in targets}
        assert names == {
            "lakefs", "mlflow", "validation", "monitor", "retraining", "alertmanager", "prometheus",
            "serving-flights",
        }  # fmt: skip
        return [] if not unhealthy else None

    assert wait_for("all targets to be up", lambda: down() == [] or None, timeout=60)


def the_model_is_retrained_by_itself(platform: RunningPlatform) -> None:
    before = ready(platform)
    statuses: list[tuple[int, str]] = []
    stop = threading.Event()

    def keep_asking() -> None:
        headers = {"Authorization": f"Bearer {platform.secret('serving-flights-key')}"}
        with httpx.Client(base_url=platform.url("serving-flights"), headers=headers, timeout=60) as client:
            while not stop.wait(0.1):
                # On the last day of the replay, which is not over yet and so is not published.
                body = {"dataframe_records": [FLIGHT], "event_time": "2013-08-31T23:00:00Z"}
                answer = client.post("/invocations", json=body)
                statuses.append((answer.status_code, answer.json().get("version", "")))

    # Summer traffic first, its labels later.
    state = platform.project / "replay.json"
    replay = ["-m", "tidemill.stacks.flights.replay", "--months", "6-8", "--rows", "3000", "--state", str(state)]
    platform.python(*replay, "--labels", "later")
    wait_for("the alert TidemillDrift", lambda: "TidemillDrift" in alerts(platform) or None, timeout=120)

    client = threading.Thread(target=keep_asking)
    client.start()
    try:
        assert ready(platform)["version"] == "1", "nothing may be trained before there is newer data"
        platform.python(*replay, "--labels", "only")
        after = wait_for(
            "the second version to serve",
            lambda: ((now := ready(platform))["version"] == "2" and now) or None,
            timeout=600,
        )
        time.sleep(3)
    finally:
        stop.set()
        client.join()

    assert {code for code, _ in statuses} == {200}, "a request failed"
    assert {version for _, version in statuses} == {"1", "2"}
    assert after["lake_commit"] != before["lake_commit"]
    assert after["git_commit"] == git(platform.project, "rev-parse", "HEAD")
    retraining = retrainings(platform)[0]
    assert retraining["reason"] == "drift"
    assert retraining["state"] == "done"
    assert retraining["data_commit"] == after["lake_commit"]
    wait_for("the alert to resolve", lambda: "TidemillDrift" not in alerts(platform) or None, timeout=180)
    wait_for("the retraining to record it", lambda: retrainings(platform)[0].get("resolved_at"), timeout=60)


def a_second_up_changes_nothing_and_says_so(platform: RunningPlatform) -> None:
    running = platform.running()
    output = platform.check("up", "--yes", "--json", "--stack", platform.stack)
    events = [json.loads(line) for line in output.splitlines()]
    assert set(events[-1]["changes"]) == {"same"}
    assert platform.running() == running


def status_names_what_serves_and_where_it_came_from(platform: RunningPlatform) -> None:
    status = platform.status()
    services = {service["name"]: service for service in status["services"]}
    assert set(services) == set(platform.services())
    assert all(service["healthy"] for service in services.values()), status
    assert all(service["memory_mb"] > 1 for service in services.values())
    (model,) = status["models"]
    assert model["version"] == ready(platform)["version"]
    assert model["lake_commit"] == ready(platform)["lake_commit"]


circle = in_order(
    up_ends_with_a_model_that_answers,
    a_wrong_key_and_a_wrong_type_are_refused,
    every_service_is_scraped,
    the_model_is_retrained_by_itself,
    a_second_up_changes_nothing_and_says_so,
    status_names_what_serves_and_where_it_came_from,
)
"""Up, train, ask, drift, train again; the fixture `platform` stands it up and destroys it."""
