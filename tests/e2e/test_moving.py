"""The platform moves: what one machine's stack holds serves on another's, as if it had always been there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tidemill.runtime import data
from tidemill.runtime.capture.reading import read_capture
from tidemill.runtime.lake import Lake
from tidemill.runtime.settings import LakeSettings

from tests.support.moving import PASSPHRASE
from tests.support.platform import RunningPlatform, copy_project, wait_for
from tests.support.scenario import ask, ready, turns

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]

STACK = "flights-dev"
VARIABLE = "TIDEMILL_ARCHIVE_PASSPHRASE"
API = "/api/2.0/mlflow"


@pytest.fixture(scope="module")
def asked(platform: RunningPlatform) -> str:
    """A request which the first platform answered and captured."""
    wait_for("the first platform to serve", lambda: ready(platform)["code"] == 200, 120)
    request = str(ask(platform)["request_id"])
    wait_for("the request to be captured", lambda: captured(platform, request), 60)
    return request


@pytest.fixture(scope="module")
def moved(platform: RunningPlatform, asked: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    """A second project, whose stack never was up, and becomes what the first one is."""
    folder = tmp_path_factory.mktemp("moved")
    running = RunningPlatform(copy_project(folder / "project"), STACK)
    assert asked
    said = json.loads(platform.check("export", "-s", STACK, "--json", str(folder / "a.tar"), **{VARIABLE: PASSPHRASE}))
    assert said["of"] == STACK
    assert said["unresolved"] == said["left_out"] == []
    done = running.run("import", "-s", STACK, str(folder / "a.tar"), **{VARIABLE: PASSPHRASE})
    assert done.returncode == 0, done.stderr
    assert "run `tidemill up`" in done.stdout
    assert {"verifying", "database mlflow", "repositories", "store mlflow-artifacts"} <= set(done.stderr.splitlines())
    again = running.run("import", "-s", STACK, str(folder / "a.tar"), **{VARIABLE: PASSPHRASE})
    assert again.returncode == 1, again.stdout
    assert again.stderr.splitlines()[-1].startswith("tidemill: flights-dev: the stack is not empty")
    try:
        running.up()
        yield running
    finally:
        running.close()


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
    wait_for("all services", moved.all_alive, 60)


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
    platform: RunningPlatform, moved: RunningPlatform, asked: str
) -> None:
    assert {turn["id"]: turn["state"] for turn in turns(moved)} == {
        turn["id"]: turn["state"] for turn in turns(platform)
    }
    assert not moved.root.log("seed-flights").exists()
    assert captured(moved, asked), "what the old place answered can be found at the new one"
    again = ask(moved)["request_id"]
    wait_for("the request to be captured", lambda: captured(moved, again), 60)


def captured(platform: RunningPlatform, request: str) -> bool:
    table = read_capture(platform.root.data("capture-flights"))
    return table is not None and request in map(str, table.column("request_id").to_pylist())
