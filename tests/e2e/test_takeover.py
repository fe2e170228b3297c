"""A stack that the last release stood up keeps running after an upgrade: nothing is lost, nothing is made again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tidemill.runtime import data
from tidemill.runtime.common.settings import RuntimeSettings, load_settings
from tidemill.runtime.data import Lake

from tests.support.generated import Clean
from tests.support.last_release import last_wheel, unpack_last_release
from tests.support.platform import RunningPlatform, copy_project, git, wait_for
from tests.support.scenario import ask, ready
from tests.support.tree import build_wheel, run_uv

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]

STACK = "flights-dev"
# Resources that this release adds to a stack; it may create no others.
NEW: set[str] = set()


@pytest.fixture
def old(tmp_path: Path) -> Iterator[RunningPlatform]:
    """The sample stack, stood up by the last release in a checkout of it."""
    clean = Clean(tmp_path, wheel=last_wheel())
    project = unpack_last_release(tmp_path / "project")
    config = project / "stacks/config/Pulumi.flights-dev.yaml"
    config.write_text(config.read_text().replace("grafana: auto", 'grafana: "off"'))
    (project / ".venv").symlink_to(clean.path, target_is_directory=True)
    git(project, "init", "--quiet", "--initial-branch=main")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "The last release")
    platform = RunningPlatform(project, STACK, bin_folder=clean.path / "bin")
    try:
        platform.check("up", "--yes", "--stack", STACK, timeout=1200)
        yield platform
    finally:
        platform.close()


def upgrade(platform: RunningPlatform, folder: Path) -> None:
    """Do what a user does: take the new release's files, and install it where the old one was."""
    # A release has a version of its own; it is part of what a service runs, so every service restarts.
    wheel = build_wheel(folder, version="0.1.1")
    python = str(platform.bin / "python")
    run_uv("pip", "install", "--quiet", "--python", python, "--no-deps", "--reinstall", str(wheel), cwd=folder)
    project = platform.project
    kept = (project / "stacks/config/Pulumi.flights-dev.yaml").read_text()
    for path in project.iterdir():
        if path.name in {".git", ".tidemill", ".venv"}:
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    copy = copy_project(folder / "new")
    shutil.rmtree(copy / ".git")
    (copy / ".venv").unlink()
    shutil.copytree(copy, project, symlinks=True, dirs_exist_ok=True)
    # The engine of the last release wrote the salt of the stack's secrets there.
    (project / "stacks/config/Pulumi.flights-dev.yaml").write_text(kept)
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "The new release")


def kept_files(platform: RunningPlatform) -> dict[str, str]:
    """Return file -> digest of all that gives access to the stack's data, and of its ports."""
    files = [*sorted(platform.root.secrets.iterdir()), platform.root.endpoints]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def lake(platform: RunningPlatform, path: str) -> Any:
    auth = (platform.secret("lakefs-key-id"), platform.secret("lakefs-secret"))
    with platform.client("lakefs") as client:
        return client.get(f"/api/v1{path}", auth=auth).raise_for_status().json()


def retrainings(platform: RunningPlatform) -> list[dict[str, Any]]:
    """Return the records of the retraining service, whatever its release calls them."""
    with platform.client("retraining", secret="retraining-token") as client:
        body = client.get("/status").raise_for_status().json()
    (records,) = (value for key, value in body.items() if key in {"turns", "retrainings"})
    return records


def commits(platform: RunningPlatform) -> list[str]:
    return [commit["id"] for commit in lake(platform, "/repositories/flights/refs/main/commits?amount=1000")["results"]]


def test_a_stack_of_the_last_release_is_taken_over(old: RunningPlatform, tmp_path: Path) -> None:
    assert ready(old)["version"] == "1"
    # Traffic to capture; without its labels there is no newer data, so nothing is trained meanwhile.
    later = ("--labels", "later", "--state", str(tmp_path / "replay.json"))
    old.python("-m", "tidemill.stacks.flights.replay", "--months", "4-4", "--rows", "400", *later)
    answered, first = ask(old), retrainings(old)[-1]
    assert (first["reason"], first["state"]) == ("no-champion", "done")
    files, history, urns, pids = kept_files(old), commits(old), old.urns(), old.pids()

    upgrade(old, tmp_path)
    events = [json.loads(line) for line in old.check("up", "--yes", "--json", "--stack", STACK).splitlines()]
    operations = {(event["operation"], event["name"]) for event in events if event["kind"] == "done"}
    assert {kind for kind, _ in operations} <= {"same", "update", "refresh", "create"}, operations
    created = {name for kind, name in operations if kind == "create"}
    assert created == NEW

    wait_for("all services", old.all_alive, 120)
    assert [urn for urn in old.urns() if urn.rpartition("::")[2] not in created] == urns
    assert kept_files(old).items() >= files.items()
    assert commits(old) == history
    # The gate signs the verdicts that the last release kept as reports, so that readers accept the same commits.
    settings = load_settings(old.root.service("retraining") / "config" / "runtime.json", RuntimeSettings).lake
    with Lake(settings) as reader:
        wait_for("the signed verdicts", lambda: data.is_validated("flights", history[0], lake=reader) or None, 60)
        assert data.read("flights/main/departures", validated=True, lake=reader).commit == history[0]
    assert (ready(old)["version"], retrainings(old)[-1]) == ("1", first)
    again = ask(old)
    # The last release answered with the probability of class 1 alone.
    assert ([late for _, late in again["predictions"]], again["version"]) == (answered["predictions"], "1")
    ours = {"mlflow", "validation", "monitor", "retraining", "serving-flights"}
    assert {name for name in ours if old.pids()[name] == pids[name]} == set(), "a service still runs the old code"

    # The accounts of the old release have their new, smaller rights, and people get their own.
    password = old.check("users", "add", "ana", "--may", "read", "--stack", STACK).strip()
    route = "/api/2.0/mlflow/experiments/create"
    for name in ("serving", "monitor", "retraining", "metrics", "training"):
        with old.client("mlflow", user=name, secret=f"mlflow-{name}") as client:
            assert client.post(route, json={"name": "evil", "artifact_location": "file:///tmp"}).status_code == 403
            assert client.get("/api/2.0/mlflow/users/current").status_code == 200

    # A service that dies later is started by the new release, from files that are still there.
    for name, pid in sorted(old.alive().items()):
        os.kill(pid, signal.SIGKILL)
        wait_for(f"{name} to be back", lambda n=name, p=pid: old.alive().get(n, p) != p or None, 60)
    old.assert_one_of_each()

    # The captured rows of the old release are there, and the record of its retraining outlives another start.
    segments = list((old.root.data("capture-flights")).rglob("capture/**/*.parquet"))
    assert segments
    (database,) = old.root.path.rglob("retrainings.db")
    with sqlite3.connect(database) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    old.check("stop", "--stack", STACK)
    old.check("start", "--stack", STACK)
    wait_for("all services", old.all_alive, 120)
    wait_for("the model to serve", lambda: ready(old)["code"] == 200 or None, 120)
    assert (ask(old)["predictions"], retrainings(old)[-1]) == (again["predictions"], first)
    with old.client("mlflow") as client:
        client.auth = httpx.BasicAuth("ana", password)
        assert client.get("/api/2.0/mlflow/users/current").json()["user"]["username"] == "ana"
        listed = json.loads(old.check("users", "list", "--json", "--stack", STACK))
        assert listed == {"users": [{"name": "ana", "may": ["read"]}]}
        old.check("users", "revoke", "ana", "--stack", STACK)
        assert client.get("/api/2.0/mlflow/users/current").status_code == 401
    assert password not in "".join(
        path.read_text(errors="replace") for path in old.root.logs.rglob("*") if path.is_file()
    )
