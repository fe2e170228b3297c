"""Permissions in a real MLflow: every route with every account, and attacks on artifacts, tags and accounts."""

from __future__ import annotations

import base64
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from tidemill.components.targets.operations import Operations
from tidemill.runtime import registry
from tidemill.runtime.common.errors import NotFoundError, UserError
from tidemill.runtime.common.settings import PromoteSettings
from tidemill.runtime.registry.accounts import PEOPLE, PROMOTE, READ, SERVICES, TRAIN
from tidemill.runtime.registry.mlflow_routes import PUBLIC, TABLE, canonical, permits
from tidemill.stacks.people import People, Person

from tests.support.accounts import Accounts, create_accounts
from tests.support.servers import mlflow_server

pytestmark = pytest.mark.integration

MODEL = "boats"
API = "/api/2.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
ROOT = Path(__file__).parents[2]


@dataclass
class StackOperations:
    """The operations of a stack whose MLflow is the test's."""

    accounts: Accounts

    def url(self, service: str) -> str:
        assert service == "mlflow"
        return self.accounts.server.url

    def secret(self, name: str) -> str:
        assert name == "mlflow-admin"
        return self.accounts.server.auth[1]

    def people(self) -> People:
        return People(cast("Operations", self))


@dataclass
class MlflowFixture:
    accounts: Accounts
    folder: Path
    routes: list[tuple[str, str, str]]
    clients: dict[str, httpx.Client]

    def __getitem__(self, name: str) -> httpx.Client:
        return self.clients[name]

    def run(self, name: str = "training", **more: Any) -> dict[str, Any]:
        body = {"experiment_id": self.accounts.experiment, "start_time": 1, **more}
        return self[name].post(f"{API}/runs/create", json=body).raise_for_status().json()["run"]

    def logged_model(self, run_id: str, *, ready: bool = True) -> dict[str, Any]:
        """Log a model of one file."""
        body = {"experiment_id": self.accounts.experiment, "name": "model", "source_run_id": run_id}
        made = self["training"].post(f"{API}/logged-models", json=body).raise_for_status().json()["model"]["info"]
        self["training"].put(f"{FILES}/{place(made['artifact_uri'])}/MLmodel", content=b"good").raise_for_status()
        if ready:
            done = {"model_id": made["model_id"], "status": "LOGGED_MODEL_READY"}
            self["training"].patch(f"{API}/logged-models/{made['model_id']}", json=done).raise_for_status()
        return made

    def version(self, source: str, name: str = "training", **more: Any) -> httpx.Response:
        return self[name].post(f"{API}/model-versions/create", json={"name": MODEL, "source": source, **more})


def place(uri: str) -> str:
    """Return the path of an artifact URI in the store."""
    assert uri.startswith("mlflow-artifacts:/")
    return uri.removeprefix("mlflow-artifacts:/")


def tags(entity: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in entity.get("tags", [])}


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowFixture]:
    folder = tmp_path_factory.mktemp("access")
    listing = folder / "routes.json"
    env = {"ROUTES_FILE": str(listing), "PYTHONPATH": str(ROOT)}
    with mlflow_server(folder / "mlflow", env=env, app="tests.support.mlflow_route_list:create_app") as server:
        accounts = create_accounts(server, folder / "secrets", MODEL)
        clients = {name: accounts.client(name) for name in ("admin", *sorted(SERVICES))}
        with StackOperations(accounts).people() as people:
            for role in (READ, TRAIN, PROMOTE):
                clients[role] = accounts.client(f"person-{role}", people.add(f"person-{role}", {role}))
        yield MlflowFixture(accounts, folder, [tuple(entry) for entry in json.loads(listing.read_text())], clients)
        for client in clients.values():
            client.close()


def test_the_table_has_exactly_the_routes_of_the_installed_mlflow(stand: MlflowFixture) -> None:
    assert [entry for entry in stand.routes if entry[0] == "mount"] == [("mount", "*", "")]
    routes = {(method, canonical(path)) for kind, method, path in stand.routes if kind != "mount"}
    assert len(routes) > 500
    assert {"not in the table": routes - TABLE.keys(), "not in MLflow": TABLE.keys() - routes} == {
        "not in the table": set(),
        "not in MLflow": set(),
    }


def test_each_account_reaches_the_routes_of_its_role_and_no_other(stand: MlflowFixture) -> None:
    """MLflow itself still checks the single experiment or model of a permitted route."""

    def refused(client: httpx.Client, route: tuple[str, str]) -> tuple[int, str]:
        method, path = route
        answer = client.request(method, re.sub("<[^>]+>", "1", path), json=None if method == "GET" else {})
        return answer.status_code, answer.text if "may not use" in answer.text else ""

    def check(route: tuple[str, str]) -> list[str]:
        wrong: list[str] = []
        for role in sorted(SERVICES | PEOPLE):
            if TABLE[route] == PUBLIC:
                continue
            status, text = refused(stand[role], route)
            expected = permits(route, {role})
            if (status == 403 and bool(text)) is expected:
                wrong.append(f"{role}: {' '.join(route)} answered {status} {text}")
        return wrong

    with ThreadPoolExecutor(4) as pool:
        assert [line for lines in pool.map(check, sorted(TABLE)) for line in lines] == []


def test_only_public_routes_answer_without_valid_credentials(stand: MlflowFixture) -> None:
    url = stand.accounts.server.url
    password = stand.accounts.passwords["serving"].read_text()

    def encoded(text: bytes) -> str:
        return base64.b64encode(text).decode()

    wrong = [
        *("Bearer x", "Basic", "Basic !!", 'Digest username="admin"', "x", "Negotiate abc"),
        *(f"Basic {encoded(text)}" for text in (b"admin", b":", b"admin:", b":x", b"\xff\xfe:x", b"admin\x00:x")),
        f"Bearer {encoded(f'serving:{password}'.encode())}",
        f"Basic {encoded(b'nobody:' + password.encode())}",
        f"Basic {encoded(b'admin:' + password.encode())}",
        f"Basic {encoded(f'serving:{password}x'.encode())}",
    ]
    before = stand.accounts.server.log.count("Traceback")
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        for path in (f"{API}/experiments/get?experiment_id=0", f"{FILES}/1/x", "/metrics", "/nowhere", "/gateway/a"):
            for header in [None, *wrong]:
                answer = client.get(path, headers={"Authorization": header} if header is not None else {})
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Basic realm="mlflow"'), header
        good = ("Authorization", f"Basic {encoded(f'serving:{password}'.encode())}")
        assert client.get(f"{API}/users/current", headers=[good]).status_code == 200
        assert client.get(f"{API}/users/current", headers=[good, good]).status_code == 401
        assert client.get("/health").status_code == 200
        private = [route for route in TABLE if TABLE[route] != PUBLIC]
        for method, path in private:
            assert client.request(method, re.sub("<[^>]+>", "1", path)).status_code == 401, (method, path)
    assert stand.accounts.server.log.count("Traceback") == before


@pytest.mark.parametrize(
    "write",
    [
        lambda url: {"artifact_location": url},
        lambda url: {"artifactLocation": url},
    ],
    ids=["field", "alias"],
)
def test_no_experiment_is_outside_of_the_artifact_store(
    stand: MlflowFixture, write: Callable[[str], dict[str, str]]
) -> None:
    secrets = stand.folder / "secrets"
    before = sorted(secrets.rglob("*"))
    for url in (
        *(f"file://{secrets}", str(secrets), f"file:{secrets}", "s3://bucket/x", "http://127.0.0.1:9/x", "dbfs:/x"),
        *("mlflow-artifacts://elsewhere:5000/x", "mlflow-artifacts:/../secrets", "mlflow-artifacts:/1/%2e%2e/%2e%2e/x"),
        *("mlflow-artifacts:/x?y=z", "mlflow-artifacts:x", "runs:/abc/x"),
    ):
        for name, expected in (("admin", 400), ("training", 403), ("train", 403), ("serving", 403), ("metrics", 403)):
            answer = stand[name].post(f"{API}/experiments/create", json={"name": f"evil-{name}", **write(url)})
            assert answer.status_code == expected, (name, url, answer.text)
    assert sorted(secrets.rglob("*")) == before
    listed = stand["admin"].post(f"{API}/experiments/search", json={"max_results": 100}).json()["experiments"]
    assert {one["name"] for one in listed} == {"Default", MODEL}


def test_an_old_experiment_outside_of_the_store_is_closed(stand: MlflowFixture) -> None:
    """Earlier releases accepted such a location from every account."""
    secrets = stand.folder / "secrets"
    admin = stand["admin"]
    made = admin.post(f"{API}/experiments/create", json={"name": "old"}).raise_for_status().json()
    experiment = made["experiment_id"]
    created = admin.post(f"{API}/runs/create", json={"experiment_id": experiment, "start_time": 1}).raise_for_status()
    run = created.json()["run"]["info"]["run_id"]
    with closing(sqlite3.connect(stand.folder / "mlflow" / "mlflow.db")) as database, database:
        where = f"file://{secrets}"
        database.execute("UPDATE experiments SET artifact_location = ? WHERE name = 'old'", (where,))
        database.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", (f"{where}/{run}/artifacts", run))
    target = secrets / run / "artifacts"
    target.mkdir(parents=True)
    (target / "kept.txt").write_text("secret")
    try:
        for answer in (
            admin.post("/ajax-api/2.0/mlflow/upload-artifact", params={"run_uuid": run, "path": "f"}, content=b"evil"),
            admin.get("/get-artifact", params={"run_uuid": run, "path": "kept.txt"}),
            admin.get(f"{API}/artifacts/list", params={"run_id": run}),
            admin.post(f"{API}/runs/create", json={"experiment_id": experiment, "start_time": 1}),
            admin.post(f"{API}/logged-models", json={"experiment_id": experiment, "name": "m"}),
        ):
            assert (answer.status_code, "outside of the artifact store" in answer.text) == (400, True), answer.text
            assert "secret" not in answer.text.replace(str(secrets), "")
        assert [path.name for path in target.iterdir()] == ["kept.txt"]
    finally:
        admin.post(f"{API}/experiments/delete", json={"experiment_id": experiment}).raise_for_status()


def test_no_version_is_made_of_files_outside_of_the_store(stand: MlflowFixture) -> None:
    run = stand.run()["info"]
    secrets = stand.folder / "secrets"
    sources = (
        *(f"file://{secrets}", str(secrets), f"file://localhost{secrets}", "s3://bucket/x", "https://example.org/x"),
        *("mlflow-artifacts://elsewhere/1", f"{run['artifact_uri']}/../../x", f"{run['artifact_uri']}/%2e%2e/%2e%2e/x"),
        *("models:/other/1", "runs:/0123456789abcdef0123456789abcdef/x", "models://host/boats/1", "dbfs:/x", "../x"),
    )
    for source in sources:
        for name in ("admin", "training", "train"):
            for more in ({}, {"run_id": run["run_id"]}):
                answer = stand.version(source, name, **more)
                assert answer.status_code in (400, 403, 404), (name, source, answer.text)
    found = stand["admin"].get(f"{API}/model-versions/search", params={"filter": f"name='{MODEL}'"}).json()
    assert not [one for one in found.get("model_versions", []) if one["source"] in sources]


def test_uploads_stay_in_the_store_and_in_the_permitted_folders(stand: MlflowFixture) -> None:
    run = stand.run()["info"]
    base = place(run["artifact_uri"])
    artifacts = stand.folder / "mlflow" / "artifacts"
    outside = {path for path in stand.folder.rglob("*") if not path.is_relative_to(artifacts)}
    for path in (
        *("../evil", "%2e%2e/evil", "..%2fevil", "%252e%252e%252fevil", "..%5cevil", "/etc/evil", "%2fetc%2fevil"),
        *(f"{base}/../../../../evil", f"{base}/..%2f..%2f..%2f..%2fevil", "1/%00", "."),
    ):
        for name in ("training", "train", "admin", "read", "serving"):
            # Send the path as it is, without httpx's normalisation.
            request = stand[name].build_request("PUT", "/")
            request.url = request.url.copy_with(raw_path=f"{FILES}/{path}".encode())
            stand[name].send(request)
    assert {path for path in stand.folder.rglob("*") if not path.is_relative_to(artifacts)} == outside
    assert not list(artifacts.rglob("evil"))
    assert stand["training"].put(f"{FILES}/{base}/mine.txt", content=b"x").status_code == 200
    assert stand["training"].put(f"{FILES}/999/{run['run_id']}/artifacts/x", content=b"x").status_code == 403
    # A file with the name of a folder would block the experiment, or another run, for everyone.
    for path in ("loose.txt", "1", "1/models", "1/traces/t", f"1/{run['run_id']}", base, f"1/{'0' * 32}/artifacts/x"):
        assert stand["training"].put(f"{FILES}/{path}", content=b"x").status_code == 403, path
    for name in ("serving", "monitor", "retraining", "metrics", "read", "promote"):
        assert stand[name].put(f"{FILES}/{base}/theirs.txt", content=b"x").status_code == 403, name
        assert stand[name].delete(f"{FILES}/{base}/mine.txt").status_code == 403, name
    for name in ("serving", "monitor", "retraining", "read"):
        assert stand[name].get(f"{FILES}/{base}/mine.txt").content == b"x", name
    assert stand["training"].delete(f"{FILES}/{base}/mine.txt").status_code == 403


def test_a_trainer_cannot_replace_the_files_of_a_version(stand: MlflowFixture) -> None:
    """Otherwise a model would pass the gate, and another one would serve."""
    run = stand.run()["info"]
    base = place(run["artifact_uri"])
    ready, pending = stand.logged_model(run["run_id"]), stand.logged_model(run["run_id"], ready=False)
    for path in ("tidemill/reference_profile.json", "model/MLmodel"):
        for name, status in (("training", 200), ("train", 403)):
            assert stand[name].put(f"{FILES}/{base}/{path}", content=b"good").status_code == status, (name, path)
    made = [
        stand.version(f"models:/{ready['model_id']}", model_id=ready["model_id"], run_id=run["run_id"]),
        stand.version(f"models:/{pending['model_id']}", model_id=pending["model_id"], run_id=run["run_id"]),
        stand.version(f"{run['artifact_uri']}/model", run_id=run["run_id"]),
    ]
    assert [answer.status_code for answer in made] == [200, 200, 200], [answer.text for answer in made]
    models = {one["model_id"]: place(one["artifact_uri"]) for one in (ready, pending)}
    closed = [
        *(f"{path}/{file}" for path in models.values() for file in ("MLmodel", "new.py", "./MLmodel", "a/%2e%2e/b")),
        *(f"{base}/tidemill/reference_profile.json", f"{base}/model/MLmodel", f"{base}/model/new.py"),
        *(f"{base}/x/..%2fmodel/MLmodel", f"{base}%2fmodel%2fMLmodel", f"{base}//model//MLmodel"),
        *(path.replace("models", "%6dodels", 1) + "/MLmodel" for path in models.values()),
    ]
    for name in ("training", "train"):
        for path in closed:
            for prefix in ("/api", "/ajax-api"):
                request = stand[name].build_request("PUT", "/", content=b"evil")
                request.url = request.url.copy_with(raw_path=f"{prefix}/2.0/mlflow-artifacts/artifacts/{path}".encode())
                answer = stand[name].send(request)
                assert answer.status_code in (400, 403), (name, path, answer.status_code)
        status = {"model_id": ready["model_id"], "status": "LOGGED_MODEL_PENDING"}
        answer = stand[name].patch(f"{API}/logged-models/{ready['model_id']}", json=status)
        expected = (400, "is complete") if name == "training" else (403, "only the account training")
        assert (answer.status_code, expected[1] in answer.text) == (expected[0], True), answer.text
        create = f"/api/2.0/mlflow-artifacts/mpu/create/{models[ready['model_id']]}"
        assert stand[name].post(create, json={"path": "MLmodel", "num_parts": 1}).status_code == 403
        other = stand[name].put(f"{FILES}/{base}/other.txt", content=b"still open for its account")
        assert other.status_code == (200 if name == "training" else 403)
    store = stand.folder / "mlflow" / "artifacts"
    assert {path.read_bytes() for path in store.rglob("MLmodel")} == {b"good"}
    assert {path.read_bytes() for path in store.rglob("reference_profile.json")} == {b"good"}
    assert not list(store.rglob("new.py"))


def test_the_server_records_the_account_and_no_client_can_forge_it(stand: MlflowFixture) -> None:
    forged = [{"key": "tidemill.account", "value": "ceo"}, {"key": "tidemill.moved.champion", "value": "ceo"}]
    run = stand.run("train", tags=[*forged, {"key": "mine", "value": "1"}])
    assert tags(run["data"]) | {"mlflow.runName": ""} == {
        "tidemill.account": "person-train", "mine": "1", "mlflow.runName": "",
    }  # fmt: skip
    run_id = run["info"]["run_id"]
    base = place(run["info"]["artifact_uri"])
    stand["train"].put(f"{FILES}/{base}/forged/MLmodel", content=b"x").raise_for_status()
    made = stand.version(f"{run['info']['artifact_uri']}/forged", "train", run_id=run_id, tags=forged)
    version = made.raise_for_status().json()["model_version"]
    assert tags(version) == {"tidemill.account": "person-train"}
    named = {"name": MODEL, "version": version["version"]}
    for tag in forged:
        for client, route, body in (
            ("train", "runs/set-tag", {"run_id": run_id, **tag}),
            ("train", "runs/log-batch", {"run_id": run_id, "tags": [tag]}),
            ("train", "runs/delete-tag", {"run_id": run_id, "key": tag["key"]}),
            ("promote", "model-versions/set-tag", {**named, **tag}),
            ("admin", "registered-models/set-tag", {"name": MODEL, **tag}),
            ("admin", "runs/set-tag", {"run_id": run_id, **tag}),
        ):
            assert stand[client].post(f"{API}/{route}", json=body).status_code == 403, (client, route)
        gone = stand["promote"].request("DELETE", f"{API}/model-versions/delete-tag", json={**named, "key": tag["key"]})
        assert gone.status_code == 403
    alias = {"name": MODEL, "alias": "champion", "version": version["version"]}
    for name in ("serving", "monitor", "training", "metrics", "read", "train"):
        assert stand[name].post(f"{API}/registered-models/alias", json=alias).status_code == 403, name
    for name, account in (("promote", "person-promote"), ("retraining", "retraining")):
        stand[name].post(f"{API}/registered-models/alias", json=alias).raise_for_status()
        found = stand["read"].get(f"{API}/registered-models/alias", params={"name": MODEL, "alias": "champion"}).json()
        move = json.loads(tags(found["model_version"])["tidemill.moved.champion"])
        assert (move["account"], move["version"]) == (account, version["version"])
    gone = {"name": MODEL, "alias": "champion"}
    stand["promote"].request("DELETE", f"{API}/registered-models/alias", json=gone).raise_for_status()
    model = stand["read"].get(f"{API}/registered-models/get", params={"name": MODEL}).json()["registered_model"]
    move = json.loads(tags(model)["tidemill.moved.champion"])
    assert (move["account"], move["version"]) == ("person-promote", None)
    lines = [json.loads(line) for line in stand.accounts.server.log.splitlines() if line.startswith("{")]
    moves = [line["account"] for line in lines if line["message"] == "request" and line["route"].endswith("/alias")]
    assert moves[-3:] == ["person-promote", "retraining", "person-promote"]


def test_who_trains_cannot_promote_a_version_of_their_own(stand: MlflowFixture) -> None:
    """The author knows the job of a run, and registers a version for it before the retraining service judges."""
    promoter = stand.accounts.settings("retraining")
    job = {"key": "tidemill.job.id", "value": "boats-drift-7"}
    verdict = {"key": "tidemill.gate.verdict", "value": "accepted"}
    promoted = {"filter": f"name='{MODEL}' and tags.`tidemill.gate.verdict` = 'accepted'"}

    def register(name: str, run: dict[str, Any], *more: dict[str, str]) -> dict[str, Any]:
        path = f"{FILES}/{place(run['info']['artifact_uri'])}/model/MLmodel"
        stand[name].put(path, content=b"x").raise_for_status()
        source, run_id = f"{run['info']['artifact_uri']}/model", run["info"]["run_id"]
        return stand.version(source, name, run_id=run_id, tags=[*more]).raise_for_status().json()["model_version"]

    trained = stand.run("training", tags=[job, verdict])
    trained_id = trained["info"]["run_id"]
    assert tags(stand.run("training", tags=[verdict])["data"]).keys() & {verdict["key"]} == set()
    metric = {"key": "auc", "value": 0.9, "timestamp": 1}
    base = place(trained["info"]["artifact_uri"])
    pending = stand.logged_model(trained_id, ready=False)
    described = {"artifact_path": "m", "flavors": {}, "utc_time_created": "2026-01-01 00:00:00"}
    # The job's run is of the training account only, also before it has a version.
    for route, body in (
        ("runs/log-metric", metric),
        ("runs/log-batch", {"metrics": [metric]}),
        ("runs/log-parameter", {"key": "a", "value": "b"}),
        ("runs/update", {"status": "FAILED"}),
        ("runs/set-tag", {"key": "tidemill.lake.commit", "value": "x"}),
        ("runs/delete-tag", {"key": job["key"]}),
        ("runs/log-inputs", {"datasets": []}),
        ("runs/outputs", {"models": []}),
        ("runs/log-model", {"model_json": json.dumps({**described, "run_id": trained_id})}),
    ):
        answer = stand["train"].post(f"{API}/{route}", json={"run_id": trained_id, **body})
        assert (answer.status_code, "only the account training" in answer.text) == (403, True), (route, answer.text)
    model = f"{API}/logged-models/{pending['model_id']}"
    ready = {"model_id": pending["model_id"], "status": "LOGGED_MODEL_READY"}
    for method, path, body in (
        ("PATCH", model, ready),
        ("PATCH", f"{model}/tags", {"tags": [{"key": "a", "value": "b"}]}),
        ("POST", f"{model}/params", {"model_id": pending["model_id"], "params": [{"key": "a", "value": "b"}]}),
    ):
        answer = stand["train"].request(method, path, json=body)
        assert (answer.status_code, "only the account training" in answer.text) == (403, True), (path, answer.text)
    for path in (f"{base}/model/MLmodel", f"{place(pending['artifact_uri'])}/MLmodel"):
        assert stand["train"].put(f"{FILES}/{path}", content=b"evil").status_code == 403, path
    # A version would close the files that the job still writes.
    stand["training"].put(f"{FILES}/{base}/model/MLmodel", content=b"x").raise_for_status()
    for source, more in (
        (f"{trained['info']['artifact_uri']}/model", {"run_id": trained_id}),
        (f"{trained['info']['artifact_uri']}/model", {}),
        (f"runs:/{trained_id}/model", {}),
        (f"models:/{pending['model_id']}", {}),
        (f"models:/{pending['model_id']}", {"model_id": pending["model_id"]}),
        (f"{pending['artifact_uri']}", {"model_id": pending["model_id"]}),
    ):
        assert stand.version(source, "train", **more).status_code in (400, 403), (source, more)
    log = {"run_id": trained_id, "metrics": [{**metric, "value": 0.4}]}
    stand["training"].post(f"{API}/runs/log-batch", json=log).raise_for_status()
    own = register("training", trained, job)
    ended = {"run_id": trained_id, "status": "FINISHED", "end_time": 2}
    stand["training"].post(f"{API}/runs/update", json=ended).raise_for_status()

    evil = stand.run("train", tags=[job, verdict, {"key": "mine", "value": "1"}])
    evil_id = evil["info"]["run_id"]
    assert tags(evil["data"]).keys() - {"mlflow.runName"} == {"tidemill.account", "mine"}
    for tag in (job, verdict):
        for route, body in (
            ("runs/set-tag", tag),
            ("runs/log-batch", {"tags": [tag]}),
            ("runs/delete-tag", {"key": tag["key"]}),
        ):
            assert stand["train"].post(f"{API}/{route}", json={"run_id": evil_id, **body}).status_code == 403, route
    stand["train"].post(f"{API}/runs/log-metric", json={"run_id": evil_id, **metric}).raise_for_status()
    forged = register("train", evil, job, verdict, {"key": "mine", "value": "1"})
    assert tags(forged).keys() == {"tidemill.account", "mine"}
    # Also a version from the job's run is the author's.
    stand.version(own["source"], "train", run_id=trained_id, tags=[job, verdict]).raise_for_status()
    assert stand["train"].get(f"{API}/model-versions/search", params=promoted).json() == {}

    def judged() -> str | None:
        found = registry.version_of_job(MODEL, job["value"], registry=promoter)
        return found.version if found else None

    assert judged() == own["version"]
    gate = PromoteSettings(metric="auc", at_least=0.5)
    assert not registry.promote(MODEL, own["version"], gate, registry=promoter).accepted
    assert registry.serving_version(MODEL, registry=promoter) is None
    # The retraining service does not rely on the job's tag alone.
    for version in (forged["version"], str(int(forged["version"]) + 1)):
        tag = {"name": MODEL, "version": version, **job}
        assert stand["promote"].post(f"{API}/model-versions/set-tag", json=tag).status_code == 403
        stand["admin"].post(f"{API}/model-versions/set-tag", json=tag).raise_for_status()
    assert judged() == own["version"]
    mixed = stand.version(f"{evil['info']['artifact_uri']}/model", run_id=evil_id, tags=[job]).raise_for_status()
    assert tags(mixed.json()["model_version"])["tidemill.account"] == "training"
    assert judged() == own["version"], "a version with the metrics of another account's run"
    # Versions of the last release, and of an MLflow without our check, name no account.
    with closing(sqlite3.connect(stand.folder / "mlflow" / "mlflow.db")) as database, database:
        account, version = "tidemill.account", own["version"]
        database.execute("DELETE FROM tags WHERE key = ? AND run_uuid = ?", (account, trained_id))
        database.execute("DELETE FROM model_version_tags WHERE key = ? AND version = ?", (account, version))
    assert judged() == own["version"]
    with closing(sqlite3.connect(stand.folder / "mlflow" / "mlflow.db")) as database, database:
        database.execute("DELETE FROM model_version_tags WHERE key = ? AND version = ?", (job["key"], own["version"]))
    assert judged() is None


def test_only_the_administrator_creates_content_and_accounts(stand: MlflowFixture) -> None:
    for name in sorted(SERVICES | PEOPLE):
        client, user = stand[name], {"username": "person-read", "resource_type": "experiment", "resource_id": "1"}
        for method, path, body in (
            ("POST", f"{API}/registered-models/create", {"name": "another"}),
            ("POST", "/api/3.0/mlflow/gateway/secrets/create",
             {"secret_name": "s", "secret_value": {"api_key": "v"}, "provider": "openai"}),
            ("POST", "/api/3.0/mlflow/users/permissions/grant", {**user, "permission": "MANAGE"}),
            ("POST", "/api/3.0/mlflow/users/permissions/revoke", user),
            ("POST", f"{API}/users/create", {"username": "evil", "password": "evil-evil-evil"}),
            ("PATCH", f"{API}/users/update-admin", {"username": name, "is_admin": True}),
            ("PATCH", f"{API}/users/update-password", {"username": "admin", "password": "evil-evil-evil"}),
            ("DELETE", f"{API}/users/delete", {"username": "person-read"}),
            ("POST", f"{API}/webhooks", {"name": "w", "url": "https://example.org", "events": []}),
            ("POST", f"{API}/experiments/delete", {"experiment_id": stand.accounts.experiment}),
            ("DELETE", f"{API}/registered-models/delete", {"name": MODEL}),
            ("POST", "/api/3.0/mlflow/roles/assign", {"username": f"person-{name}", "role_id": 1}),
        ):  # fmt: skip
            assert client.request(method, path, json=body).status_code == 403, (name, path)
    # MLflow's client asks for it before each new version.
    again = stand["training"].post(f"{API}/registered-models/create", json={"name": MODEL})
    assert (again.status_code, again.json()["error_code"]) == (400, "RESOURCE_ALREADY_EXISTS")


def test_accounts_of_people_are_added_and_revoked_without_a_restart(stand: MlflowFixture) -> None:
    operations = StackOperations(stand.accounts)
    with operations.people() as people:
        before = people.all()
        assert before == [Person(f"person-{role}", (role,)) for role in sorted(PEOPLE)]
        password = people.add("ana@example.org", {"train", "promote"})
        assert people.all() == [Person("ana@example.org", ("promote", "train")), *before]
        with stand.accounts.client("ana@example.org", password) as ana:
            whoami = ana.get(f"{API}/users/current").raise_for_status().json()["user"]
            assert (whoami["username"], whoami["is_admin"]) == ("ana@example.org", False)
            run = stand.run()["info"]["run_id"]
            assert ana.get(f"{API}/runs/get", params={"run_id": run}).status_code == 200
            change = {"username": "ana@example.org", "password": "another-long-password"}
            assert ana.patch(f"{API}/users/update-password", json=change).status_code == 400
            changed = ana.patch(f"{API}/users/update-password", json={**change, "current_password": password})
            assert changed.status_code == 200
            assert ana.get(f"{API}/users/current").status_code == 401, "the old password is refused immediately"
        with stand.accounts.client("ana@example.org", "another-long-password") as ana:
            assert ana.get(f"{FILES}/1/none").status_code == 404
            people.revoke("ana@example.org")
            for path in (f"{API}/users/current", f"{FILES}/1/none", "/metrics"):
                assert ana.get(path).status_code == 401
        assert people.all() == before
        for name in sorted(SERVICES | {"admin"}):
            with pytest.raises(UserError, match="name of an account of the platform"):
                people.add(name, {"read"})
            with pytest.raises(UserError, match="is an account of the platform"):
                people.revoke(name)
        with pytest.raises(UserError, match="already has an account"):
            people.add("person-read", {"promote"})
        with pytest.raises(UserError, match="is not a valid name"):
            people.add("Ana:admin", {"read"})
        with pytest.raises(NotFoundError, match="has no account"):
            people.revoke("ana@example.org")
        # An account that someone created in MLflow itself has no role.
        stand["admin"].post(f"{API}/users/create", json={"username": "zoe", "password": password}).raise_for_status()
        assert people.all() == [*before, Person("zoe", ())]
        with stand.accounts.client("zoe", password) as zoe:
            assert zoe.get(f"{API}/experiments/get", params={"experiment_id": "0"}).status_code == 403
            assert zoe.get(f"{API}/users/current").status_code == 200
        people.revoke("zoe")
    database = b"".join(path.read_bytes() for path in (stand.folder / "mlflow").glob("accounts.db*"))
    assert b"person-read" in database
    assert password.encode() not in database + stand.accounts.server.log.encode()


def test_a_tunnel_may_end_at_any_port_of_the_caller(stand: MlflowFixture) -> None:
    expected = {
        "localhost:80": 200,
        "localhost": 200,
        "127.0.0.1:1": 200,
        "example.org": 403,
        "evil.localhost:80": 403,
    }
    for host, status in expected.items():
        assert stand["read"].get(f"{API}/users/current", headers={"Host": host}).status_code == status, host
