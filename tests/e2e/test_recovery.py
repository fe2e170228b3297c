"""What breaks is mended, what is lost is said, and nothing is there twice. Tests build on one another, in order."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tidemill.components import tools

from tests.support import langhost
from tests.support.platform import BIN, RunningPlatform, processes_of, wait_for
from tests.support.small import STACK, small_project

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

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


def alive(platform: RunningPlatform) -> dict[str, int]:
    """Return service -> pid of those which answer as healthy."""
    status = platform.status()
    return {service["name"]: service["pid"] for service in status["services"] if service["healthy"]}


def all_alive(platform: RunningPlatform) -> dict[str, int] | None:
    now = alive(platform)
    return now if set(now) == SERVICES else None


def supervisord(platform: RunningPlatform) -> int:
    return int((platform.root.run / "supervisord.pid").read_text())


def assert_one_of_each(platform: RunningPlatform) -> None:
    """Every service has one process group, and nothing else of the stack runs but its supervisord."""
    groups: dict[str, set[int]] = {}
    for process in processes_of(platform.root):
        try:
            service = process.environ().get("TIDEMILL_SERVICE")
            if service:
                groups.setdefault(service.rsplit("/", 1)[-1], set()).add(os.getpgid(process.pid))
        except (psutil.Error, ProcessLookupError):
            continue
    assert len(groups.pop("supervisord", set())) == 1
    assert set(groups) == SERVICES
    assert all(len(group) == 1 for group in groups.values()), groups


def up(platform: RunningPlatform, *args: str, **env: str) -> str:
    return platform.check("up", "--yes", "--stack", STACK, *args, **env)


def test_a_killed_service_is_back_without_a_hand(small: RunningPlatform) -> None:
    for name, pid in alive(small).items():
        os.kill(pid, signal.SIGKILL)
        back = wait_for(
            f"{name} to be back", lambda n=name, p=pid: ((now := alive(small).get(n)) and now != p and now) or None, 60
        )
        assert back != pid
    assert_one_of_each(small)


@pytest.mark.parametrize("mend", ["start", "up"])
def test_a_killed_supervisord_leaves_no_service_twice(small: RunningPlatform, mend: str) -> None:
    before = wait_for("all services", lambda: all_alive(small), 60)
    os.kill(supervisord(small), signal.SIGKILL)
    time.sleep(1)
    assert all(psutil.pid_exists(pid) for pid in before.values()), "the services live on"
    if mend == "start":
        small.check("start", "--stack", STACK)
    else:
        up(small)
    wait_for("all services", lambda: all_alive(small), 60)
    assert_one_of_each(small)


def test_a_changed_setting_restarts_that_service_and_no_other(small: RunningPlatform) -> None:
    before = wait_for("all services", lambda: all_alive(small), 60)
    config = small.project / f"stacks/config/Pulumi.{STACK}.yaml"
    text = config.read_text()
    config.write_text(text.replace("    environment: dev\n", "    environment: dev\n    monitoring: {retention: 3d}\n"))
    try:
        up(small)
        after = wait_for("all services", lambda: all_alive(small), 60)
    finally:
        config.write_text(text)
    assert {name for name in SERVICES if after[name] != before[name]} == {"prometheus"}
    up(small)


def test_a_lifted_protection_is_shown_and_mended(small: RunningPlatform) -> None:
    with lakefs(small) as client:
        rules = client.get("/repositories/harbour/settings/branch_protection").raise_for_status().json()
        assert [rule["pattern"] for rule in rules] == ["main"]
        client.put("/repositories/harbour/settings/branch_protection", json=[]).raise_for_status()
        shown = small.check("refresh", "--stack", STACK)
        assert "protect-harbour" in shown
        up(small)
        rules = client.get("/repositories/harbour/settings/branch_protection").raise_for_status().json()
    assert [rule["pattern"] for rule in rules] == ["main"]


def test_an_unreachable_lake_is_not_a_lost_one(small: RunningPlatform) -> None:
    """lakeFS cannot be reached while `up` refreshes: its content stays in the state, the service comes back."""
    # A supervisord which is stopped cannot restart what is killed, so the refresh finds the server gone.
    small.check("stop", "--stack", STACK)
    output = up(small)
    assert "unreachable" in output.lower() or "does not answer" in output.lower(), output
    with lakefs(small) as client:
        assert client.get("/repositories/harbour").status_code == 200
    wait_for("all services", lambda: all_alive(small), 60)


def test_a_lost_repository_is_not_made_again_in_silence(small: RunningPlatform) -> None:
    with lakefs(small) as client:
        client.delete("/repositories/harbour", params={"force": True}).raise_for_status()
        # lakeFS keeps answering from a cache for some seconds.
        gone = lambda: client.get("/repositories/harbour").status_code == 404 or None  # noqa: E731
        wait_for("lakeFS to forget the repository", gone, 30)
        time.sleep(6)
        refused = small.run("up", "--yes", "--stack", STACK)
        assert refused.returncode != 0
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
    assert all_alive(small), "a refused destroy may touch nothing"


def test_destroy_refuses_while_there_is_data(small: RunningPlatform) -> None:
    refused = small.run("destroy", "--yes", "--stack", STACK)
    assert refused.returncode == 1
    said = refused.stdout + refused.stderr
    assert "tidemill stop" in said
    assert "--delete-data" in said
    assert all_alive(small)


@pytest.mark.parametrize("after", [1.5, 4.0, 7.0])
def test_a_killed_up_is_recovered_by_the_next(tmp_path: Path, after: float) -> None:
    platform = small_project(tmp_path)
    try:
        started = subprocess.Popen(
            [str(BIN / "tidemill"), "up", "--yes", "--stack", STACK],
            cwd=platform.project, env=platform.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        time.sleep(after)
        children = psutil.Process(started.pid).children(recursive=True)
        engines = [child for child in children if "pulumi" in child.name()]
        for process in [psutil.Process(started.pid), *engines]:
            if process.is_running():
                process.kill()
        started.wait()

        output = up(platform)
        assert set(alive(platform)) == SERVICES
        assert_one_of_each(platform)
        if engines:
            assert "interrupted" in output.lower() or "killed" in output.lower() or "creat" in output.lower(), output
        again = [json.loads(line) for line in up(platform, "--json").splitlines()]
        assert set(again[-1]["changes"]) == {"same"}
    finally:
        platform.close()
    assert not platform.root.path.exists()


def test_destroy_with_its_data_leaves_nothing(tmp_path: Path) -> None:
    platform = small_project(tmp_path)
    up(platform)
    ports: dict[str, Any] = json.loads(platform.root.endpoints.read_text())
    socket = platform.root.socket
    assert socket.exists()
    platform.check("destroy", "--delete-data", "--yes", "--stack", STACK)
    assert not processes_of(platform.root)
    assert not platform.root.path.exists()
    assert not socket.exists()
    for port in ports.values():
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/")
    left = [path for path in (platform.project / ".tidemill").rglob("*") if path.is_file() and STACK in str(path)]
    assert not left
