"""No secret in plain text, no open port without credentials, nothing that phones home: on the running platform."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.platform import RunningPlatform, processes_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]


def secrets_of(platform: RunningPlatform) -> dict[str, str]:
    found = {path.name: path.read_text().strip() for path in platform.root.secrets.iterdir() if path.is_file()}
    passphrase = platform.project / ".tidemill" / "passphrase"
    found["passphrase"] = passphrase.read_text().strip()
    assert len(found) >= 15
    assert all(len(value) >= 16 for value in found.values())
    return found


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def test_secrets_are_private_files(platform: RunningPlatform) -> None:
    for path in [*platform.root.secrets.iterdir(), platform.project / ".tidemill" / "passphrase"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_no_secret_in_state_logs_command_lines_or_files_for_others(platform: RunningPlatform) -> None:
    values = {name: value.encode() for name, value in secrets_of(platform).items()}
    leaks: list[str] = []

    def search(where: str, content: bytes) -> None:
        leaks.extend(f"{name} in {where}" for name, value in values.items() if value in content)

    state = files(platform.project / ".tidemill" / "state")
    logs = files(platform.root.logs)
    assert state
    assert logs
    for path in [*state, *logs]:
        search(str(path), path.read_bytes())
    for path in files(platform.project):
        # Every folder on the way must let others in for them to read it.
        private = any(
            not stat.S_IMODE(parent.stat().st_mode) & 0o001
            for parent in path.parents
            if parent.is_relative_to(platform.project)
        )
        if stat.S_IMODE(path.stat().st_mode) & 0o044 and not private:
            search(str(path), path.read_bytes())
    # All since the platform was begun: the engine, the provider, jobs and services.
    commands = "\n".join(platform.watch.commands)
    for program in (
        "bin/pulumi\0",
        "pulumi-resource-tidemill-native\0",
        "bin/tidemill\0up\0",
        "bin/lakefs\0",
        "train.py",
    ):
        assert program in commands, f"{program} was not seen"
    search("a command line", commands.encode())
    search("what `up` printed", platform.up_output.encode())
    search("what `status` prints", platform.check("status", "--json").encode())
    search("what `env` prints", platform.check("env").encode())
    assert not leaks


def test_generated_files_are_private(platform: RunningPlatform) -> None:
    open_ones = [
        path
        for path in [platform.root.path, *(platform.root.path / "services").rglob("*")]
        if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    assert not open_ones


def test_every_port_listens_on_loopback_and_asks_for_credentials(platform: RunningPlatform) -> None:
    ports: dict[int, str] = {}
    for process in processes_of(platform.root):
        try:
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    assert connection.laddr.ip == "127.0.0.1", f"{process.name()} listens on {connection.laddr}"
                    ports[connection.laddr.port] = process.name()
        except psutil.NoSuchProcess:
            continue
    assert len(ports) >= 8
    asked = {
        "lakefs": "/api/v1/repositories",
        "mlflow": "/api/2.0/mlflow/experiments/search?max_results=1",
        "prometheus": "/api/v1/query?query=up",
        "alertmanager": "/api/v2/alerts",
        "serving-flights": "/metrics",
        "monitor": "/metrics",
        "validation": "/metrics",
        "retraining": "/status",
    }
    for service, path in asked.items():
        assert httpx.get(f"{platform.url(service)}{path}").status_code == 401, service


def test_a_foreign_host_header_is_refused(platform: RunningPlatform) -> None:
    with platform.client("mlflow", user="admin", secret="mlflow-admin") as client:
        assert client.get("/api/2.0/mlflow/experiments/search?max_results=1").status_code == 200
        answer = client.get("/api/2.0/mlflow/experiments/search?max_results=1", headers={"Host": "evil.example"})
        assert answer.status_code == 403
    for service in ("serving-flights", "monitor", "validation", "retraining"):
        for path in ("/healthz", "/metrics", "/status"):
            answer = httpx.get(f"{platform.url(service)}{path}", headers={"Host": "evil.example"})
            assert (answer.status_code, answer.headers["content-type"]) == (421, "application/problem+json"), service


def test_a_service_may_not_do_what_is_not_its_own(platform: RunningPlatform) -> None:
    with platform.client("mlflow", user="serving", secret="mlflow-serving") as client:
        read = client.get("/api/2.0/mlflow/registered-models/get", params={"name": "flights"})
        assert read.status_code == 200
        moved = client.post(
            "/api/2.0/mlflow/registered-models/alias", json={"name": "flights", "alias": "champion", "version": "1"}
        )
        assert moved.status_code == 403
    with platform.client("mlflow", user="metrics", secret="mlflow-metrics") as client:
        assert client.get("/api/2.0/mlflow/registered-models/get", params={"name": "flights"}).status_code == 403


def test_nothing_left_the_machine(platform: RunningPlatform) -> None:
    """Neither a service or job, nor the command, the engine and the provider which brought them up."""
    assert platform.watch.samples > 10, "the watch did not run"
    assert any("bin/pulumi\0" in command for command in platform.watch.commands), "it did not see the engine"
    assert not platform.watch.outside


def test_no_service_got_this_process_s_environment(platform: RunningPlatform) -> None:
    marker = "PYTEST_CURRENT_TEST"
    assert marker in os.environ
    for process in processes_of(platform.root):
        assert marker not in process.environ()
