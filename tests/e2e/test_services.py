"""Each service of the running platform by itself: what it tells, and what it may do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.platform import RunningPlatform, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]


def version(platform: RunningPlatform) -> str | None:
    """Return the version which serves, or None while none does."""
    with platform.client("serving-flights") as client:
        answer = client.get("/readyz")
    return answer.json()["version"] if answer.status_code == 200 else None


def test_the_history_names_the_accounts(platform: RunningPlatform) -> None:
    """Training code has an account that cannot promote, and MLflow records which account did what."""
    api = "/api/2.0/mlflow"
    with platform.client("mlflow", user="training", secret="mlflow-training") as training:
        alias = {"name": "flights", "alias": "champion"}
        found = training.get(f"{api}/registered-models/alias", params=alias).raise_for_status().json()["model_version"]
        tags = {tag["key"]: tag["value"] for tag in found["tags"]}
        assert tags["tidemill.account"] == "training"
        assert json.loads(tags["tidemill.moved.champion"])["account"] == "retraining"
        run = training.get(f"{api}/runs/get", params={"run_id": found["run_id"]}).raise_for_status().json()["run"]
        assert {"key": "tidemill.account", "value": "training"} in run["data"]["tags"]
        refused = training.post(f"{api}/registered-models/alias", json={**alias, "version": found["version"]})
        assert refused.status_code == 403


def test_status_tells_that_the_alias_and_the_version_are_gone(platform: RunningPlatform) -> None:
    api = "/api/2.0/mlflow"
    wait_for("all services", platform.all_alive, 60)
    served = version(platform)
    assert served

    def retrainings() -> list[str]:
        with platform.client("retraining", secret="retraining-token") as client:
            return [each["id"] for each in client.get("/status").raise_for_status().json()["retrainings"]]

    def model() -> dict[str, Any]:
        (found,) = platform.status()["models"]
        return found

    before = retrainings()
    with platform.client("mlflow", user="admin", secret="mlflow-admin") as admin:
        alias = {"name": "flights", "alias": "champion"}
        admin.request("DELETE", f"{api}/registered-models/alias", json=alias).raise_for_status()
        try:
            platform.check("restart", "serving-flights", "--stack", platform.stack)
            wait_for("all services", platform.all_alive, 60)
            wait_for("the model to serve from the cache", lambda: version(platform) == served or None, 60)
            found = wait_for("the missing alias", lambda: (now := model())["degraded"] and now, 30)
            assert (found["ready"], found["version"], found["alias"]) == (True, served, None)
            assert "no alias champion" in found["problem"]
            service = next(each for each in platform.status()["services"] if each["name"] == "serving-flights")
            assert (service["healthy"], service["degraded"]) == (True, True)
            text = platform.run("status", "--stack", platform.stack, COLUMNS="300").stdout
            assert f"version {served} (degraded: the registry has no alias champion" in text
            with platform.client("prometheus", user="admin", secret="prometheus-admin") as prometheus:

                def alerts() -> dict[str, str]:
                    answer = prometheus.get("/api/v1/alerts").raise_for_status()
                    return {each["labels"]["alertname"]: each["state"] for each in answer.json()["data"]["alerts"]}

                wait_for("the alert", lambda: "TidemillAliasMissing" in alerts() or None, 60)
                assert "TidemillNoChampion" not in alerts()
            assert retrainings() == before
        finally:
            admin.post(f"{api}/registered-models/alias", json={**alias, "version": served}).raise_for_status()
    wait_for("the alias to be back", lambda: (model()["alias"] == "champion" and not model()["degraded"]) or None, 30)


def test_artifacts_go_through_the_registry(platform: RunningPlatform) -> None:
    """A client needs neither the store's path nor rights on it, and what it may do is what its user may do."""
    api = "/api/2.0/mlflow"
    with (
        platform.client("mlflow", user="admin", secret="mlflow-admin") as admin,
        platform.client("mlflow", user="training", secret="mlflow-training") as writer,
        platform.client("mlflow", user="serving", secret="mlflow-serving") as reader,
        platform.client("mlflow", user="metrics", secret="mlflow-metrics") as stranger,
    ):
        found = writer.get(f"{api}/experiments/get-by-name", params={"experiment_name": "flights"}).raise_for_status()
        experiment = found.json()["experiment"]
        made = writer.post(f"{api}/runs/create", json={"experiment_id": experiment["experiment_id"]}).raise_for_status()
        info = made.json()["run"]["info"]
        try:
            where = info["artifact_uri"]
            assert where.startswith("mlflow-artifacts:/")
            assert str(platform.project) not in found.text + made.text
            path = f"/api/2.0/mlflow-artifacts/artifacts/{where.removeprefix('mlflow-artifacts:/')}/note.txt"
            content = b"through the proxy\n" * 1000
            assert writer.put(path, content=content).status_code == 200
            assert writer.get(path).content == content
            listed = writer.get(f"{api}/artifacts/list", params={"run_id": info["run_id"]}).raise_for_status()
            assert str(platform.project) not in listed.text
            assert [file["path"] for file in listed.json()["files"]] == ["note.txt"]
            assert reader.get(path).content == content
            assert reader.put(path, content=b"mine").status_code == 403
            assert stranger.get(path).status_code == 403
            stored = list(platform.root.data("mlflow-artifacts").rglob("note.txt"))
            assert [file.read_bytes() for file in stored] == [content]
        finally:
            admin.post(f"{api}/runs/delete", json={"run_id": info["run_id"]}).raise_for_status()
