"""What breaks is fixed, what is lost is said, and nothing is there twice. Tests build on one another, in order."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tidemill.components import tools
from tidemill.components.provider.local.supervisor import Supervisor

from tests.support import langhost
from tests.support.platform import RunningPlatform, processes_of, wait_for
from tests.support.small import CONFIG, STACK, small_project

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200), pytest.mark.slow]

SERVICES = {"lakefs", "mlflow", "prometheus", "alertmanager"}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    platform = small_project(tmp_path_factory.mktemp("small"))
    try:
        platform.check("up", "--yes", "--stack", STACK)
        yield platform
    finally:
        platform.close()


def lakefs(platform: RunningPlatform) -> httpx.Client:
    return httpx.Client(
        base_url=f"{platform.url('lakefs')}/api/v1",
        auth=(platform.secret("lakefs-key-id"), platform.secret("lakefs-secret")),
        timeout=30,
    )


def supervisord(platform: RunningPlatform) -> int:
    return int((platform.root.run / "supervisord.pid").read_text())


def up(platform: RunningPlatform, *args: str) -> str:
    return platform.check("up", "--yes", "--stack", STACK, *args)


def test_a_killed_service_is_back_without_a_hand(small: RunningPlatform) -> None:
    for name, pid in small.alive().items():
        os.kill(pid, signal.SIGKILL)
        back = wait_for(
            f"{name} to be back", lambda n=name, p=pid: ((now := small.alive().get(n)) and now != p and now) or None, 60
        )
        assert back != pid
    small.assert_one_of_each()


@pytest.mark.parametrize("hint", ["start", "up"])
def test_a_killed_supervisord_leaves_no_service_twice(small: RunningPlatform, hint: str) -> None:
    before = wait_for("all services", small.all_alive, 60)
    os.kill(supervisord(small), signal.SIGKILL)
    time.sleep(1)
    assert all(psutil.pid_exists(pid) for pid in before.values()), "the services live on"
    done = small.run("status", "--json", "--stack", STACK)
    assert done.returncode == 1
    services = json.loads(done.stdout)["services"]
    assert {each["name"]: each["pid"] for each in services} == before
    for each in services:
        assert (each["state"], each["alive"], each["healthy"]) == ("unsupervised", True, False)
        assert "not supervised; `tidemill start`" in each["problem"]
        assert each["memory_mb"] > 1
    if hint == "start":
        small.check("start", "--stack", STACK)
    else:
        up(small)
    wait_for("all services", small.all_alive, 60)
    assert {each["state"] for each in small.status()["services"]} == {"running"}
    small.assert_one_of_each()


def test_a_changed_setting_restarts_that_service_and_no_other(small: RunningPlatform) -> None:
    before = wait_for("all services", small.all_alive, 60)
    config = small.project / f"stacks/config/Pulumi.{STACK}.yaml"
    text = config.read_text()
    config.write_text(text.replace('grafana: "off"', 'grafana: "off", retention: 3d'))
    try:
        up(small)
        after = wait_for("all services", small.all_alive, 60)
    finally:
        config.write_text(text)
    assert {name for name in SERVICES if after[name] != before[name]} == {"prometheus"}
    up(small)


def lift_protection(small: RunningPlatform) -> None:
    with lakefs(small) as client:
        client.put("/repositories/harbour/settings/branch_protection", json=[]).raise_for_status()


def protected(small: RunningPlatform) -> bool:
    with lakefs(small) as client:
        rules = client.get("/repositories/harbour/settings/branch_protection").raise_for_status().json()
    return [rule["pattern"] for rule in rules] == ["main"]


def remove_user(small: RunningPlatform) -> None:
    with small.client("mlflow", user="admin", secret="mlflow-admin") as client:
        client.request("DELETE", "/api/2.0/mlflow/users/delete", json={"username": "metrics"}).raise_for_status()


def user_exists(small: RunningPlatform) -> bool:
    with small.client("mlflow", user="admin", secret="mlflow-admin") as client:
        return client.get("/api/2.0/mlflow/users/get", params={"username": "metrics"}).status_code == 200


def test_a_lifted_protection_is_shown_and_repaired(small: RunningPlatform) -> None:
    assert protected(small)
    lift_protection(small)
    assert "protect-harbour" in small.check("refresh", "--stack", STACK)
    up(small)
    assert protected(small)


@pytest.mark.parametrize(
    ("service", "title", "harm", "harmed", "fixed"),
    [
        ("lakefs", "lakeFS", remove_user, "metrics", user_exists),
        ("mlflow", "MLflow", lift_protection, "protect-harbour", protected),
    ],
    ids=["lakefs", "mlflow"],
)
def test_what_is_unreachable_is_not_lost(
    small: RunningPlatform,
    service: str,
    title: str,
    harm: Callable[[RunningPlatform], None],
    harmed: str,
    fixed: Callable[[RunningPlatform], bool],
) -> None:
    """One server cannot be reached during the refresh: its content stays in the state, and all else is fixed."""
    before, urns = wait_for("all services", small.all_alive, 60), small.urns()
    harm(small)
    assert not fixed(small)
    shutil.rmtree(small.root.service("alertmanager"))
    Supervisor(small.root).end(service)
    events = [json.loads(line) for line in up(small, "--json").splitlines()]

    # Once for each server, however much is in it.
    (warned,) = [event["text"] for event in events if event.get("severity") == "warning"]
    assert warned.startswith(f"{title}: does not answer"), warned
    assert "its resources are assumed unchanged" in warned
    changed = {
        (event["operation"], event["name"])
        for event in events
        if event["kind"] == "done" and event["operation"] not in ("same", "refresh")
    }
    assert {("update", service), ("update", "alertmanager")} <= changed
    assert {name for _, name in changed} == {service, "alertmanager", harmed}, changed
    assert fixed(small)
    assert user_exists(small)
    assert protected(small)
    assert small.urns() == urns
    after = wait_for("all services", small.all_alive, 60)
    assert {name for name in SERVICES if after[name] != before[name]} == {service, "alertmanager"}


def test_a_lost_repository_is_not_made_again_in_silence(small: RunningPlatform) -> None:
    with lakefs(small) as client:
        client.delete("/repositories/harbour", params={"force": True}).raise_for_status()
        # lakeFS keeps answering from a cache for some seconds.
        gone = lambda: client.get("/repositories/harbour").status_code == 404 or None  # noqa: E731
        wait_for("lakeFS to forget the repository", gone, 30)
        time.sleep(6)
        refused = small.run("up", "--yes", "--stack", STACK)
        assert refused.returncode == 1, refused.stderr
        said = refused.stdout + refused.stderr
        assert "--recreate harbour" in said
        assert "restore" in said
        assert client.get("/repositories/harbour").status_code == 404, "made again, empty, in silence"
        up(small, "--recreate", "harbour")
        assert client.get("/repositories/harbour").status_code == 200


def test_stop_keeps_everything_and_up_brings_it_back(small: RunningPlatform) -> None:
    ports = small.root.endpoints.read_text()
    key = small.secret("lakefs-secret")
    with lakefs(small) as client:
        client.post("/repositories/harbour/branches", json={"name": "work", "source": "main"}).raise_for_status()
    small.check("stop", "--stack", STACK)
    assert not processes_of(small.root)
    up(small)
    assert small.root.endpoints.read_text() == ports
    assert small.secret("lakefs-secret") == key
    with lakefs(small) as client:
        assert client.get("/repositories/harbour/branches/work").status_code == 200


def test_the_real_pulumi_shares_program_and_state(small: RunningPlatform, tmp_path: Path) -> None:
    """What users type: `pulumi preview`, `up` and `destroy` on this project with Pulumi.yaml as it is."""
    exported = small.check("env", "--stack", STACK)
    hosts = langhost.install(tmp_path / "hosts")

    def pulumi(*args: str) -> subprocess.CompletedProcess[str]:
        script = f'{exported}\nexport PATH="{hosts}:$PATH"\nexec "$0" "$@"'
        return subprocess.run(
            ["bash", "-c", script, str(tools.find("pulumi")), *args, "--stack", STACK, "--non-interactive"],
            cwd=small.project, env=small.environment(), capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    done = pulumi("up", "--yes", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    operations = set(re.findall(r'"op": "([a-z-]+)"', done.stdout))
    assert "same" in operations
    assert operations <= {"same", "refresh"}, "the two ways do not see one state"

    refused = pulumi("destroy", "--yes")
    assert refused.returncode != 0
    said = refused.stdout + refused.stderr
    assert "tidemill stop" in said, said
    assert "tidemill destroy --delete-data" in said, said
    assert small.all_alive(), "a refused destroy may touch nothing"


def test_destroy_refuses_while_there_is_data(small: RunningPlatform) -> None:
    before = small.urns(), small.all_alive()

    def refused(done: tuple[int, str], code: int, *words: str) -> None:
        assert done[0] == code, done[1]
        for word in words:
            assert word in done[1]
        assert (small.urns(), small.all_alive()) == before, "a refused destroy may touch nothing"

    def run(*args: str) -> tuple[int, str]:
        done = small.run(*args, "--stack", STACK)
        return done.returncode, done.stdout + done.stderr

    refused(run("destroy", "--yes"), 1, "tidemill stop", "--delete-data")
    refused(run("destroy", "--delete-data"), 2, "--yes")
    for reply in ("n", ""):
        refused(small.answer(reply, "destroy", "--delete-data", "--stack", STACK), 1, "data", STACK)


def test_two_stacks_side_by_side(small: RunningPlatform) -> None:
    """A second team in the same project, on the same machine: nothing of one opens, or goes with, the other."""
    before, urns = wait_for("all services", small.all_alive, 60), small.urns()
    config = small.project / "stacks/config/Pulumi.pier-dev.yaml"
    config.write_text(CONFIG.replace("harbour", "pier"))
    pier = RunningPlatform(small.project, "pier-dev")
    try:
        pier.check("up", "--yes", "--stack", pier.stack)
        assert set(pier.alive()) == SERVICES
        assert small.all_alive() == before
        ports, theirs = (set(json.loads(one.root.endpoints.read_text()).values()) for one in (small, pier))
        assert len(ports) == len(theirs) == len(SERVICES)
        assert not ports & theirs
        assert not {path.read_text() for path in small.root.secrets.iterdir()} & {
            path.read_text() for path in pier.root.secrets.iterdir()
        }
        for one, other in ((small, pier), (pier, small)):
            for service, path, user, secret in (
                ("lakefs", "/api/v1/repositories", one.secret("lakefs-key-id"), "lakefs-secret"),
                ("mlflow", "/api/2.0/mlflow/users/get?username=metrics", "admin", "mlflow-admin"),
                ("prometheus", "/api/v1/query?query=up", "admin", "prometheus-admin"),
                ("alertmanager", "/api/v2/alerts", "admin", "alertmanager-admin"),
            ):
                auth = (user, one.secret(secret))
                assert httpx.get(f"{one.url(service)}{path}", auth=auth).status_code == 200, service
                assert httpx.get(f"{other.url(service)}{path}", auth=auth).status_code == 401, service
    finally:
        pier.close()
        config.unlink()
    assert not pier.root.path.exists()
    assert small.all_alive() == before
    assert small.urns() == urns
    assert protected(small)


# When it is killed, what it must not be over with yet, and what the next run says.
KILLED = "an earlier run was killed while it created"
UNLOCKED = "removed the lock of an earlier run on this host that did not release it"


@pytest.mark.parametrize(
    ("moment", "unfinished", "torn"),
    [
        (("done", ":local:", ""), set[str](), False),
        (("started", ":local:Service", "lakefs"), {"lakefs"}, False),
        (("done", ":local:Service", "lakefs"), {"mlflow"}, True),
    ],
    ids=["first-thing-made", "lakefs-begun", "lakefs-made"],
)
def test_a_killed_up_is_recovered_by_the_next(
    small: RunningPlatform, tmp_path: Path, moment: tuple[str, str, str], unfinished: set[str], torn: bool
) -> None:
    platform = small_project(tmp_path)
    try:
        below = kill_at(platform, moment)
        assert {"pulumi", "pulumi-resource-"} <= set(below.values())
        wait_for("the provider to end by itself", lambda: not [one for one in below if not of_a_service(one)], 10, 0.1)
        if torn:
            # The engine does not write this file whole or not at all: a kill may leave it empty.
            (attributes,) = platform.state.rglob(f"stacks/*/{STACK}.json.attrs")
            attributes.write_text("")

        said = up(platform)
        assert UNLOCKED in said
        for name in unfinished:
            assert re.search(rf"{KILLED}.*\b{name}\b", said), said
        assert "error" not in said.lower()
        assert set(platform.alive()) == SERVICES
        platform.assert_one_of_each()
        platform.assert_no_lock_held()
        assert platform.urns() == small.urns()
        again = [json.loads(line) for line in up(platform, "--json").splitlines()]
        assert again[-1]["changes"] == {"same": counted(small)}
        assert not [event for event in again if event["kind"] == "note"], "it was over and done with"
    finally:
        platform.close()
    assert not platform.root.path.exists()


def counted(platform: RunningPlatform) -> int:
    """Return how many resources an `up` which changes nothing counts: all but the providers."""
    return len([urn for urn in platform.urns() if "::pulumi:providers:" not in urn])


def kill_at(platform: RunningPlatform, moment: tuple[str, str, str]) -> dict[psutil.Process, str]:
    """Start `up`, kill it and its engine at `moment` (kind, part of the type, name); return what ran below it."""
    kind, part, name = moment
    with platform.start("up", "--yes", "--json", "--stack", STACK) as started:
        assert started.stdout
        for line in started.stdout:
            event = json.loads(line)
            if event["kind"] == kind and part in event["type"] and name in ("", event["name"]):
                break
        else:
            pytest.fail(f"{moment} never came")
        if kind == "started":  # the engine tells this before it has begun
            wait_for(f"{name} to be started", platform.root.record(name).exists, 30, 0.01)
        # Stopped first, so that what it is about to do while it is looked at does not happen.
        first = psutil.Process(started.pid)
        first.suspend()
        below = {process: kind_of(process) for process in first.children(recursive=True)}
        for process in [first, *(process for process, kind in below.items() if kind == "pulumi")]:
            process.kill()
    return below


def of_a_service(process: psutil.Process) -> bool:
    """Say whether it is over, or one of those which may outlive the run."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE or "TIDEMILL_SERVICE" in process.environ()
    except psutil.NoSuchProcess:
        return True


def kind_of(process: psutil.Process) -> str:
    words = [word.rsplit("/", 1)[-1] for word in process.cmdline()[:2]]
    return next((name for name in ("pulumi-resource-", "pulumi") if any(word.startswith(name) for word in words)), "")


def test_destroy_with_its_data_leaves_nothing(tmp_path: Path) -> None:
    platform = small_project(tmp_path)
    up(platform)
    ports: dict[str, Any] = json.loads(platform.root.endpoints.read_text())
    socket = platform.root.socket
    assert socket.exists()
    code, said = platform.answer("y", "destroy", "--delete-data", "--stack", STACK)
    assert code == 0, said
    assert "data" in said
    assert not processes_of(platform.root)
    assert not platform.root.path.exists()
    assert not socket.exists()
    for port in ports.values():
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/")
    left = [path for path in (platform.project / ".tidemill").rglob("*") if path.is_file() and STACK in str(path)]
    assert not left
