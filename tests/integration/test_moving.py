"""Exports and imports of real stacks: lakeFS with its gate, MLflow on SQLite and on Postgres."""

from __future__ import annotations

import json
import secrets
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tidemill.components.layout import StackRoot
from tidemill.components.targets.local.migration import LocalDestination
from tidemill.components.targets.migration import LakeServer
from tidemill.runtime import data
from tidemill.runtime.common.errors import PlatformError, RefusedError
from tidemill.runtime.common.settings import LakeSettings
from tidemill.runtime.data.lake_client import Lake
from tidemill.stacks.flights import departures
from tidemill.stacks.moving.archive import open_archive
from tidemill.stacks.moving.contents import Step
from tidemill.stacks.moving.export import Subject, export
from tidemill.stacks.moving.import_ import import_
from tidemill.stacks.moving.lake import LakeClient, Snapshot

from tests.support.gate import GatedLake, gated_lake
from tests.support.moving import PASSPHRASE, SUBJECT, DatabaseDestination, ServerSource, write_file
from tests.support.postgres import Postgres, postgres_server
from tests.support.servers import Server, lakefs_server, mlflow_server, secret_file

pytestmark = pytest.mark.integration

API = "/api/2.0/mlflow"
ARTIFACT = b"weights" * 5000
OWNER = "tidemill.stack"
KEYS = json.dumps({"keys": [{"name": "dashboard", "sha256": "f" * 64}]})


@dataclass
class Old:
    """A stack's old place, and what is in it.

    Attributes:
        source: where it is read.
        gated: the lake.
        commit: a commit which passed the gate, and which a model was trained on.
        dangling: a commit which another model was trained on, and whose branch is gone.
        run: id of the first model's run.
    """

    source: ServerSource
    gated: GatedLake
    mlflow: Server
    commit: str
    dangling: str
    run: str


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Old]:
    folder = tmp_path_factory.mktemp("old")
    stores = folder / "stores"
    with (
        gated_lake(folder / "lake") as gated,
        mlflow_server(
            folder / "mlflow", env={"_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(stores / "mlflow-artifacts")}
        ) as mlflow,
    ):
        commit, dangling = _fill_lake(gated)
        run = _fill_mlflow(mlflow, commit, dangling)
        write_file(stores / "capture-flights/capture/date=2026-01-02/x.parquet", b"traffic" * 100)
        write_file(stores / "capture-flights/labels/date=2026-01-02/y.parquet", b"labels")
        write_file(
            stores / "access-flights/keys.json", json.dumps({"keys": [{"name": "dashboard", "sha256": "f" * 64}]})
        )
        write_file(stores / "prometheus/wal", b"stays")
        kept = {
            "lakefs-key-id": gated.lakefs.auth[0],
            "lakefs-secret": gated.lakefs.auth[1],
            "lakefs-encrypt": secrets.token_urlsafe(32),
            "serving-flights-key": secrets.token_urlsafe(32),
        }
        urls = {
            "mlflow": f"sqlite:///{folder}/mlflow/mlflow.db",
            "mlflow-accounts": f"sqlite:///{folder}/mlflow/accounts.db",
        }
        yield Old(ServerSource(gated.lakefs, urls, folder, kept), gated, mlflow, commit, dangling, run)


@pytest.fixture(scope="module")
def archive(old: Old, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archives") / "flights"
    export(old.source, SUBJECT, path, PASSPHRASE)
    return path


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


def _fill_lake(gated: GatedLake) -> tuple[str, str]:
    with Lake(gated.settings) as lake:
        frame = departures.month_frame(1).head(300)
        first = data.add(frame, "flights/main/departures/a.parquet", message="a", metadata={"k": "v"}, lake=lake)
        data.add(frame, "flights/main/departures/b.parquet", message="b", lake=lake)
        data.branch("flights/gone", lake=lake)
        data.write(frame, "flights/gone/departures/c.parquet", lake=lake)
        dangling = data.commit("flights/gone", "c", lake=lake)
        lake.delete_branch("flights", "gone")
        data.branch("flights/draft", lake=lake)
        data.write(frame, "flights/draft/departures/unfinished.parquet", lake=lake)
    _lakefs(gated.lakefs, "POST", "/repositories/flights/tags", json={"id": "v1", "ref": first.commit})
    _lakefs(gated.lakefs, "POST", "/repositories/flights/metadata", json={"metadata": {OWNER: "flights-dev", "x": "y"}})
    _lakefs(gated.lakefs, "PUT", "/repositories/flights/settings/branch_protection", json=[{"pattern": "main"}])
    return first.commit, dangling.commit


def _lakefs(server: Server, method: str, route: str, **options: Any) -> httpx.Response:
    answer = httpx.request(method, f"{server.url}/api/v1{route}", auth=server.auth, trust_env=False, **options)
    answer.raise_for_status()
    return answer


def _fill_mlflow(server: Server, commit: str, dangling: str) -> str:
    with _mlflow(server.url, *server.auth) as http:
        owner = [{"key": OWNER, "value": "flights-dev"}]
        experiment = _post(http, "experiments/create", name="flights", tags=owner)["experiment_id"]
        runs: list[str] = []
        for each in (commit, dangling, "f" * 64):
            tags = {"tidemill.lake.repository": "flights", "tidemill.lake.commit": each, "ünï": 'c"ö\n\\d'}
            made = _post(
                http,
                "runs/create",
                experiment_id=experiment,
                start_time=1,
                tags=[{"key": key, "value": value} for key, value in tags.items()],
            )
            runs.append(made["run"]["info"]["run_id"])
        metrics = [{"key": "auc", "value": 1 / 3, "timestamp": step, "step": step} for step in range(1200)]
        metrics += [{"key": "a", "value": "NaN", "timestamp": 1}, {"key": "b", "value": "Infinity", "timestamp": 1}]
        for batch in (metrics[:900], metrics[900:]):
            _post(http, "runs/log-batch", run_id=runs[0], metrics=batch, params=[])
        _post(http, "runs/log-batch", run_id=runs[0], metrics=[], params=[{"key": "depth", "value": "3"}])
        path = f"{experiment}/{runs[0]}/artifacts/model/weights.bin"
        http.put(f"/api/2.0/mlflow-artifacts/artifacts/{path}", content=ARTIFACT).raise_for_status()
        _post(http, "registered-models/create", name="flights", tags=owner)
        source = f"mlflow-artifacts:/{experiment}/{runs[0]}/artifacts/model"
        _post(http, "model-versions/create", name="flights", source=source, run_id=runs[0])
        _post(http, "registered-models/alias", name="flights", alias="champion", version="1")
        _post(http, "users/create", username="serving", password="a password of tests")
        grant = {"username": "serving", "resource_type": "experiment", "resource_id": experiment, "permission": "READ"}
        http.post("/api/3.0/mlflow/users/permissions/grant", json=grant)
    return runs[0]


@contextmanager
def _mlflow(url: str, user: str, password: str) -> Generator[httpx.Client]:
    with httpx.Client(base_url=url, auth=(user, password), trust_env=False, timeout=60) as http:
        yield http


def _post(http: httpx.Client, route: str, **body: Any) -> dict[str, Any]:
    answer = http.post(f"{API}/{route}", json=body)
    answer.raise_for_status()
    return answer.json()


@contextmanager
def _moved_mlflow(folder: Path, old: Old, urls: dict[str, str], artifacts: Path) -> Generator[httpx.Client]:
    """Run MLflow on the imported databases and artifacts; its administrator has the old password."""
    accounts = secret_file(
        folder,
        "accounts.ini",
        f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = {urls['mlflow-accounts'].replace('%', '%%')}\n"
        f"admin_username = admin\nadmin_password = {old.mlflow.auth[1]}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
    )
    env = {
        "_MLFLOW_SERVER_FILE_STORE": urls["mlflow"],
        "_MLFLOW_SERVER_REGISTRY_STORE": urls["mlflow"],
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(artifacts),
        "MLFLOW_AUTH_CONFIG_PATH": str(accounts),
    }
    with mlflow_server(folder, env=env) as server, _mlflow(server.url, *old.mlflow.auth) as http:
        yield http


def _check_mlflow(http: httpx.Client, old: Old) -> None:
    run = http.get(f"{API}/runs/get", params={"run_id": old.run}).json()["run"]
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert (tags["tidemill.lake.commit"], tags["ünï"]) == (old.commit, 'c"ö\n\\d')
    metrics = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    assert (metrics["auc"], str(metrics["a"]).lower(), metrics["b"]) == (1 / 3, "nan", 1.7976931348623157e308)
    assert run["data"]["params"] == [{"key": "depth", "value": "3"}]
    history = http.get(
        f"{API}/metrics/get-history", params={"run_id": old.run, "metric_key": "auc", "max_results": 5000}
    ).json()
    assert len(history["metrics"]) == 1200
    champion = http.get(f"{API}/registered-models/alias", params={"name": "flights", "alias": "champion"}).json()
    version = champion["model_version"]
    assert (version["version"], version["run_id"]) == ("1", old.run)
    path = f"{version['source'].removeprefix('mlflow-artifacts:/')}/weights.bin"
    assert http.get(f"/api/2.0/mlflow-artifacts/artifacts/{path}").content == ARTIFACT
    asked = {"url": f"{API}/runs/get", "params": {"run_id": old.run}}
    assert http.get(**asked, auth=("serving", "a password of tests")).status_code == 200, "readers keep their access"
    assert http.get(**asked, auth=("serving", "another password")).status_code == 401


def test_all_contents_move_and_stay_consistent(old: Old, archive: Path, tmp_path: Path) -> None:
    told: list[Step] = []
    root = StackRoot(tmp_path / "stacks" / "flights-dev")
    done = import_(LocalDestination(root), SUBJECT, ["flights"], archive, PASSPHRASE, told.append)
    assert (done.resumed, done.kept) == (False, 0)
    assert {step.what for step in told} >= {"verifying", "database mlflow", "repositories", "store capture-flights"}
    assert max(step.done for step in told) == done.manifest.bytes, "the progress reached the total"

    about = done.manifest.repositories["flights"]
    assert about.left_out == ["draft: departures/unfinished.parquet"]
    assert done.manifest.unresolved == [f"flights@{'f' * 64}"]
    assert set(about.pinned) == {old.commit, old.dangling}
    assert [path.name for path in (tmp_path / "stacks").iterdir()] == ["flights-dev"], "no other folder is left"
    for name, value in old.source.secrets().items():
        assert (root.secrets / name).read_text() == value
        assert (root.secrets / name).stat().st_mode & 0o777 == 0o600
    for name in ("capture-flights", "access-flights"):
        for path in (old.source.folder / "stores" / name).rglob("*.*"):
            moved = root.data(name) / path.relative_to(old.source.folder / "stores" / name)
            assert moved.is_dir() == path.is_dir()
            assert path.is_dir() or moved.read_bytes() == path.read_bytes()
    assert not root.data("prometheus").exists()
    assert json.loads((root.job("seed-flights") / "done.json").read_text()) == {"digest": "0" * 64, "exit_code": 0}

    with _moved_lake(tmp_path / "lakefs", root, old) as (server, lake):
        _check_lake(server, lake, old)
    urls = {name: f"sqlite:///{root.data(name)}/{name}.db" for name in ("mlflow", "mlflow-accounts")}
    with _moved_mlflow(tmp_path / "mlflow", old, urls, root.data("mlflow-artifacts")) as http:
        _check_mlflow(http, old)


@contextmanager
def _moved_lake(folder: Path, root: StackRoot, old: Old) -> Generator[tuple[Server, Lake]]:
    env = {
        "LAKEFS_DATABASE_LOCAL_PATH": str(root.data("lakefs")),
        "LAKEFS_BLOCKSTORE_LOCAL_PATH": str(root.data("lakefs-objects")),
        "LAKEFS_AUTH_ENCRYPT_SECRET_KEY": (root.secrets / "lakefs-encrypt").read_text(),
        "LAKEFSACTION_HOOK": old.gated.hook_secret,
    }
    with lakefs_server(folder, env=env) as server:
        server.auth = ((root.secrets / "lakefs-key-id").read_text(), (root.secrets / "lakefs-secret").read_text())
        settings = LakeSettings(
            endpoint=server.url,
            key_id_file=root.secrets / "lakefs-key-id",
            secret_file=root.secrets / "lakefs-secret",
            verdict_keys=old.gated.settings.verdict_keys,
        )
        with Lake(settings) as lake:
            yield server, lake


def _check_lake(server: Server, lake: Lake, old: Old) -> None:
    servers = (old.gated.lakefs, server)
    before, after = (LakeClient(LakeServer(each.url, *each.auth)) for each in servers)
    pins = (old.commit, old.dangling)
    # lakeFS names a dump of commits by its bytes, and the order of a commit's metadata varies: some of twenty dumps of
    # one repository had different names. So the commits themselves are compared.
    then, now = (_with_commits(client, each, pins) for client, each in zip((before, after), servers, strict=True))
    assert now == then, "every commit, branch and tag"
    assert len(now[1]) > len(pins)
    assert list(after.runs("flights")) == list(before.runs("flights"))
    assert list(after.uncommitted("flights")) == []
    metadata = _lakefs(server, "GET", "/repositories/flights/metadata").json()
    assert metadata == {OWNER: "flights-dev", "x": "y"}
    with Lake(old.gated.settings) as old_lake:
        assert [*lake.log("flights", "main")] == [*old_lake.log("flights", "main")]
    for commit in (old.commit, old.dangling, "v1"):
        assert len(data.read(f"flights/{commit}/departures", lake=lake).to_pandas()) >= 300
    # The gate's verdicts moved too: exactly the validated commits are validated.
    assert data.is_validated("flights", old.commit, lake=lake)
    assert not data.is_validated("flights", old.dangling, lake=lake)
    assert data.read("flights/main/departures", validated=True, lake=lake).commit == lake.head("flights", "main").id
    # The lake accepts new commits.
    data.write(departures.month_frame(2).head(9), "flights/draft/departures/d.parquet", lake=lake)
    made = data.commit("flights/draft", "on top", lake=lake)
    assert lake.head("flights", made.commit).parents == (lake.head("flights", "main").id,)


def _with_commits(client: LakeClient, server: Server, pins: tuple[str, ...]) -> tuple[Snapshot, list[Any]]:
    found = client.snapshot("flights", pins)
    commits = [_lakefs(server, "GET", f"/repositories/flights/commits/{one}").json() for one in sorted(found.commits)]
    return replace(found, refs=replace(found.refs, commits="")), commits


def test_secrets_are_unreadable_and_changes_are_detected(old: Old, archive: Path, tmp_path: Path) -> None:
    files = sorted(path for path in archive.rglob("*") if path.is_file())
    assert len(files) > 40
    hidden = [value.encode() for value in old.source.secrets().values()] + [b"pbkdf2", b"scrypt:", b"dashboard"]
    for path in files:
        held = path.read_bytes()
        assert not [value for value in hidden if value in held], path
    for path in files:
        held = path.read_bytes()
        changed = bytearray(held or b"x")
        changed[len(changed) // 2] ^= 1
        path.write_bytes(changed)
        try:
            with open_archive(archive) as opened, pytest.raises(RefusedError):
                found, _ = opened.manifest(PASSPHRASE)
                opened.verify(found)
        finally:
            path.write_bytes(held)
    victim = next(path for path in files if "capture-flights" in str(path))
    held = victim.read_bytes()
    victim.write_bytes(held[::-1] + b"x")
    try:
        with pytest.raises(RefusedError, match="nothing was imported"):
            import_(LocalDestination(StackRoot(tmp_path / "s" / "x-dev")), SUBJECT, ["flights"], archive, PASSPHRASE)
    finally:
        victim.write_bytes(held)
    assert list(tmp_path.iterdir()) == []


def test_the_databases_move_to_postgres_and_back(old: Old, archive: Path, postgres: Postgres, tmp_path: Path) -> None:
    urls = {name: postgres.new_database(name) for name in ("mlflow", "mlflow-accounts", "lakefs")}
    root = StackRoot(tmp_path / "stacks" / "flights-dev")
    first = import_(DatabaseDestination(root, urls), SUBJECT, ["flights"], archive, PASSPHRASE).manifest

    there = ServerSource(old.gated.lakefs, urls, old.source.folder, old.source.kept)
    second = export(there, SUBJECT, tmp_path / "back.tar", PASSPHRASE)
    assert second.databases == first.databases, "row for row"
    assert not list(root.data("lakefs").iterdir()), "lakeFS stored its commits, branches and runs in Postgres too"

    with _moved_mlflow(tmp_path / "mlflow", old, urls, root.data("mlflow-artifacts")) as http:
        _check_mlflow(http, old)
        # Sequences continue after the imported numbers.
        assert int(_post(http, "experiments/create", name="new")["experiment_id"]) > 1
        _post(http, "users/create", username="new", password="another password of tests")

    back = StackRoot(tmp_path / "stacks" / "back-dev")
    subject = Subject("back-dev", "back", "local", ("flights",))
    third = import_(LocalDestination(back), subject, ["flights"], tmp_path / "back.tar", PASSPHRASE).manifest
    assert third.databases == first.databases
    urls = {name: f"sqlite:///{back.data(name)}/{name}.db" for name in ("mlflow", "mlflow-accounts")}
    with _moved_mlflow(tmp_path / "mlflow-back", old, urls, back.data("mlflow-artifacts")) as http:
        _check_mlflow(http, old)
        model = http.get(f"{API}/registered-models/get", params={"name": "flights"}).json()["registered_model"]
        assert {tag["key"]: tag["value"] for tag in model["tags"]}[OWNER] == "back-dev", "it belongs to the new stack"

    with pytest.raises(RefusedError, match="the database is not empty"):
        again = StackRoot(tmp_path / "stacks" / "again-dev")
        import_(
            DatabaseDestination(again, {**urls, "mlflow": there.urls["mlflow"]}),
            SUBJECT,
            ["flights"],
            archive,
            PASSPHRASE,
        )
    assert not (tmp_path / "stacks" / "again-dev").exists()


def test_an_interrupted_import_leaves_the_stack_empty_and_can_continue(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = StackRoot(tmp_path / "stacks" / "flights-dev")
    place = tmp_path / "stacks" / ".flights-dev.importing"

    class Interrupted(LocalDestination):
        def lake(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_(Interrupted(root), SUBJECT, ["flights"], archive, PASSPHRASE)
    assert not root.path.exists()
    assert place.is_dir()
    with monkeypatch.context() as patched:
        patched.setattr(LakeClient, "commits", lambda *_: frozenset())
        with pytest.raises(
            PlatformError, match=r"the commits in lakeFS differ from the archive.*import again to go on"
        ):
            import_(LocalDestination(root), SUBJECT, ["flights"], archive, PASSPHRASE)
    assert not root.path.exists()
    done = import_(LocalDestination(root), SUBJECT, ["flights"], archive, PASSPHRASE)
    assert done.resumed
    assert done.kept == done.manifest.repositories["flights"].objects.files
    assert root.path.is_dir()
    assert not place.exists()


def test_a_mismatched_archive_is_refused_before_anything_is_written(archive: Path, tmp_path: Path) -> None:
    root = StackRoot(tmp_path / "stacks" / "flights-dev")
    other = Subject("flights-dev", "flights", "local", ())

    def refused(subject: Subject, repositories: list[str], passphrase: str = PASSPHRASE) -> str:
        with pytest.raises(RefusedError) as error:
            import_(LocalDestination(root), subject, repositories, archive, passphrase)
        return str(error.value)

    assert "has models that are missing in the stack's config, got 'flights'" in refused(other, ["flights"])
    assert "has repositories that are missing in the stack's config, got 'flights'" in refused(SUBJECT, [])
    assert "wrong passphrase" in refused(SUBJECT, ["flights"], "incorrect horse battery staple")
    assert list(tmp_path.iterdir()) == []
    write_file(root.data("x") / "y", "z")
    said = refused(SUBJECT, ["flights"])
    assert f"the stack is not empty: {root.path} exists; import into a new stack" in said
    assert [path.name for path in (tmp_path / "stacks").iterdir()] == ["flights-dev"]


def test_an_export_fails_on_missing_and_imported_objects(old: Old, tmp_path: Path) -> None:
    env = {
        "LAKEFS_BLOCKSTORE_LOCAL_IMPORT_ENABLED": "true",
        "LAKEFS_BLOCKSTORE_LOCAL_ALLOWED_EXTERNAL_PREFIXES": str(tmp_path),
    }
    with lakefs_server(tmp_path / "lake", env=env) as lakefs:
        body = {"name": "flights", "storage_namespace": "local://flights"}
        _lakefs(lakefs, "POST", "/repositories", json=body)
        route = "/repositories/flights/branches/main"
        _lakefs(lakefs, "POST", f"{route}/objects", params={"path": "x"}, content=b"x")
        _lakefs(lakefs, "POST", f"{route}/commits", json={"message": "x"})
        (held,) = [path for path in (lakefs.folder / "objects/flights/data").rglob("*") if path.is_file()]
        source = ServerSource(lakefs, old.source.urls, old.source.folder, old.source.kept)
        held.write_bytes(b"longer")
        with pytest.raises(PlatformError, match="is missing in the lake's store, or has another size"):
            export(source, SUBJECT, tmp_path / "a.tar", PASSPHRASE)
        held.write_bytes(b"x")
        outside = tmp_path / "outside" / "big.parquet"
        write_file(outside, b"big")
        paths = [{"path": f"local://{outside.parent}/", "destination": "d/", "type": "common_prefix"}]
        started = _lakefs(lakefs, "POST", f"{route}/import", json={"paths": paths, "commit": {"message": "i"}}).json()
        while not (said := _lakefs(lakefs, "GET", f"{route}/import", params={"id": started["id"]}).json())["completed"]:
            assert not said.get("error"), said
        with pytest.raises(RefusedError, match="is outside the lake's own store"):
            export(source, SUBJECT, tmp_path / "a.tar", PASSPHRASE)
    assert not [path for path in tmp_path.iterdir() if "tar" in path.name]
