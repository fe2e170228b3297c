"""The platform moves: what this machine's stack holds serves in containers, and from there on this machine again.

Without a Docker daemon it moves to a second place on this machine, and the tests of docker say so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tidemill.runtime import data
from tidemill.runtime.capture.reading import read_capture
from tidemill.runtime.common.settings import LakeSettings
from tidemill.runtime.common.verdicts import public_key
from tidemill.runtime.data.lake_client import Lake

from tests.support.docker import docker_daemon
from tests.support.docker_platform import DockerPlatform
from tests.support.moving import PASSPHRASE
from tests.support.platform import RunningPlatform, copy_project, wait_for
from tests.support.scenario import ask, ready, retrainings

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400), pytest.mark.slow]

STACK = "flights-dev"
VARIABLE = {"TIDEMILL_ARCHIVE_PASSPHRASE": PASSPHRASE}
API = "/api/2.0/mlflow"


@pytest.fixture(scope="module")
def asked(platform: RunningPlatform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A request which the first platform answered and captured."""
    folder = tmp_path_factory.mktemp("captured")
    wait_for("the first platform to serve", lambda: ready(platform)["code"] == 200, 120)
    request = str(ask(platform)["request_id"])
    wait_for("the request to be captured", lambda: captured(platform, request, folder), 60)
    return request


@pytest.fixture(scope="module")
def moved(platform: RunningPlatform, asked: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    """A second project, whose stack never was up, and becomes what the first one is."""
    folder = tmp_path_factory.mktemp("moved")
    assert asked
    with ExitStack() as stack:
        try:
            running: RunningPlatform = DockerPlatform(folder, stack.enter_context(docker_daemon()))
        except pytest.skip.Exception:
            running = RunningPlatform(copy_project(folder / "project"), STACK)
        archive = str(folder / "a.tar")
        said = json.loads(platform.check("export", "-s", STACK, "--json", archive, **VARIABLE))
        assert said["of"] == STACK
        assert said["unresolved"] == said["left_out"] == []
        import_into(running, archive)
        again = running.run("import", "-s", STACK, archive, **VARIABLE)
        assert again.returncode == 1, again.stdout
        assert again.stderr.splitlines()[-1].startswith("tidemill: flights-dev: the stack is not empty")
        with up(running):
            yield running


@contextmanager
def up(running: RunningPlatform) -> Iterator[None]:
    try:
        running.up()
        yield
    finally:
        running.close()
    running.assert_gone()


def import_into(running: RunningPlatform, archive: str) -> None:
    done = running.run("import", "-s", STACK, archive, **VARIABLE)
    assert done.returncode == 0, done.stderr
    assert "run `tidemill up`" in done.stdout
    assert {"verifying", "database mlflow", "repositories", "store mlflow-artifacts"} <= set(done.stderr.splitlines())


def champion(platform: RunningPlatform) -> dict[str, Any]:
    """Return version, tags of its run, and lake commit of the champion."""
    with platform.client("mlflow", user="admin", secret="mlflow-admin") as client:
        asked = {"name": "flights", "alias": "champion"}
        version = client.get(f"{API}/registered-models/alias", params=asked).raise_for_status().json()["model_version"]
        run = client.get(f"{API}/runs/get", params={"run_id": version["run_id"]}).raise_for_status().json()["run"]
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"] if tag["key"].startswith("tidemill.")}
    return {"version": version["version"], "run": version["run_id"], "tags": tags}


def lake(platform: RunningPlatform) -> Lake:
    secrets = platform.root.secrets
    return Lake(
        LakeSettings(
            endpoint=platform.url("lakefs"),
            key_id_file=secrets / "lakefs-key-id",
            secret_file=secrets / "lakefs-secret",
            verdict_keys=(public_key((secrets / "verdict-signing-key").read_text()),),
        )
    )


def test_the_champion_serves_at_the_new_place_under_the_old_key(
    platform: RunningPlatform, moved: RunningPlatform
) -> None:
    assert moved.secret("serving-flights-key") == platform.secret("serving-flights-key")
    assert moved.url("serving-flights") != platform.url("serving-flights")
    wait_for("the champion to serve", lambda: ready(moved)["code"] == 200, 120)
    old, new = ask(platform), ask(moved)
    assert new["request_id"] != old["request_id"]
    assert (new["version"], new["predictions"]) == (old["version"], old["predictions"])
    wait_for("all services", lambda: all(each["healthy"] for each in moved.status()["services"]), 60)


def test_every_champion_s_triple_still_resolves(platform: RunningPlatform, moved: RunningPlatform) -> None:
    triple = champion(moved)
    assert triple == champion(platform)
    commit = triple["tags"]["tidemill.lake.commit"]
    address = f"flights/{commit}/{triple['tags']['tidemill.lake.path']}"
    with lake(platform) as old, lake(moved) as new:
        assert new.head("flights", commit) == old.head("flights", commit)
        assert data.is_validated("flights", commit, lake=new)
        before, after = (data.read(address, lake=each).to_pandas() for each in (old, new))
        assert before.equals(after)
        assert list(new.log("flights", commit)) == list(old.log("flights", commit))
        # Whatever was added since is the new place's own gate, and went through it.
        assert data.newest_validated("flights/main", lake=new) == new.head("flights", "main").id


def test_nothing_was_seeded_or_trained_again_and_the_past_came_along(
    platform: RunningPlatform, moved: RunningPlatform, asked: str, tmp_path: Path
) -> None:
    assert {each["id"]: each["state"] for each in retrainings(moved)} == {
        each["id"]: each["state"] for each in retrainings(platform)
    }
    assert not moved.root.log("seed-flights").exists()
    assert captured(moved, asked, tmp_path), "what the old place answered can be found at the new one"
    again = ask(moved)["request_id"]
    wait_for("the request to be captured", lambda: captured(moved, again, tmp_path), 60)


def test_what_is_in_containers_moves_to_this_machine(moved: RunningPlatform, asked: str, tmp_path: Path) -> None:
    if not isinstance(moved, DockerPlatform):
        pytest.skip("no Docker daemon runs here, and none can be started")
    archive = str(tmp_path / "b.tar")
    said = json.loads(moved.check("export", "-s", STACK, "--json", archive, **VARIABLE))
    assert said["unresolved"] == said["left_out"] == []
    here = RunningPlatform(copy_project(tmp_path / "project"), STACK)
    import_into(here, archive)
    assert captured(here, asked, tmp_path)
    with up(here):
        wait_for("the champion to serve", lambda: ready(here)["code"] == 200, 120)
        assert ask(here)["predictions"] == ask(moved)["predictions"]
        assert here.secret("serving-flights-key") == moved.secret("serving-flights-key")
        assert not {"postgres-admin", "database-mlflow"} & {path.name for path in here.root.secrets.iterdir()}
        triple = champion(here)
        assert triple == champion(moved)
        commit = triple["tags"]["tidemill.lake.commit"]
        with lake(moved) as old, lake(here) as new:
            assert list(new.log("flights", commit)) == list(old.log("flights", commit))
            assert data.is_validated("flights", commit, lake=new)
        assert not here.root.log("seed-flights").exists()
        assert {each["id"] for each in retrainings(here)} == {each["id"] for each in retrainings(moved)}


def captured(platform: RunningPlatform, request: str, folder: Path) -> bool:
    """Tell whether a request can be found in what was captured."""
    found = platform.root.data("capture-flights")
    if isinstance(platform, DockerPlatform):
        # The monitor, which mounts the same volume, is asked for it.
        platform.copy_out("monitor", "/data/capture-flights", folder)
        found = folder / "capture-flights"
    table = read_capture(found)
    return table is not None and request in map(str, table.column("request_id").to_pylist())
