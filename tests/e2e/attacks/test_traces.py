"""After the attacks of the other modules: no secret in traces, no open port, no second process.

The modules of this folder run in the order of their names, so the logs hold what the attacks wrote to them.
"""

from __future__ import annotations

import stat
from pathlib import Path

import psutil
import pytest

from tests.support.attacks.doors import doors, secrets
from tests.support.drill import Drill
from tests.support.platform import RunningPlatform, processes_of, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]

# lakeFS and MLflow take these only from their environment, which only the same user can read.
_IN_ENVIRONMENT = {
    "lakefs": {"lakefs-key-id", "lakefs-secret", "lakefs-encrypt", "lakefs-signing", "lakefs-hook"},
    "mlflow": {"mlflow-flask"},
}


def test_secrets_in_traces(platform: RunningPlatform, drill: Drill) -> None:
    values = {name: value.encode() for name, value in secrets(platform).items()}
    values["passphrase"] = (platform.project / ".tidemill" / "passphrase").read_bytes().strip()

    # lakeFS logs the key id of refused requests. It is a name, and useless without its secret.
    names = {"lakefs-key-id"}

    def found(content: bytes) -> list[str]:
        return [name for name, value in values.items() if value in content and name not in names]

    with drill("secrets", "command lines") as attack:
        commands = {"\0".join(process.cmdline()) for process in processes_of(platform.root)} | platform.watch.commands
        for command in commands:
            attack.tried(command[:60], not found(command.encode()))
    with drill("secrets", "environments") as attack:
        for process in processes_of(platform.root):
            try:
                content = Path(f"/proc/{process.pid}/environ").read_bytes()
                mode = stat.S_IMODE(Path(f"/proc/{process.pid}/environ").stat().st_mode)
                service = process.environ().get("TIDEMILL_SERVICE", "").rsplit("/", 1)[-1]
            except (OSError, psutil.Error):
                continue
            more = set(found(content)) - _IN_ENVIRONMENT.get(service, set())
            attack.tried(f"{service} {process.name()}", not more and mode == 0o400, f"{more} {mode:o}")
    with drill("secrets", "logs, state and generated files") as attack:
        state = platform.project / ".tidemill" / "state"
        places = [platform.root.logs, state, platform.root.path / "jobs", platform.root.run]
        for path in [path for place in places for path in place.rglob("*") if path.is_file()]:
            attack.tried(str(path.relative_to(platform.project)), not (seen := found(path.read_bytes())), seen)
        for path in (platform.root.path / "services").rglob("*"):
            if path.is_file() and not path.is_symlink() and (seen := found(path.read_bytes())):
                private = stat.S_IMODE(path.stat().st_mode) == 0o600
                attack.tried(str(path.relative_to(platform.root.path)), private, seen)
        for path in platform.root.secrets.iterdir():
            attack.tried(path.name, stat.S_IMODE(path.stat().st_mode) == 0o600)


def test_errors_in_logs(platform: RunningPlatform, drill: Drill) -> None:
    """No attack caused an unhandled error in a service of the project."""
    with drill("logs", "tracebacks of the project's services") as attack:
        for service in ("serving-flights", "monitor", "retraining", "validation"):
            lines = platform.root.log(service).read_text(errors="replace").replace("\\n", "\n").splitlines()
            starts = [at for at, line in enumerate(lines) if "Traceback" in line]
            # The error is the first line after the indented ones.
            errors = {next((line for line in lines[at + 1 :] if not line.startswith(" ")), "") for at in starts}
            attack.tried(service, not errors, errors)


def test_the_platform_is_whole(platform: RunningPlatform, drill: Drill) -> None:
    """Every service is healthy, runs once, and listens on loopback only."""
    with drill("platform", "whole after the attacks") as attack:
        alive = wait_for("health", platform.all_alive, 90)
        attack.tried("every service is healthy", set(alive) == set(platform.services()))
        platform.assert_one_of_each()
        ports = {
            connection.laddr
            for process in processes_of(platform.root)
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        for address in ports:
            attack.tried(f"{address.ip}:{address.port}", address.ip == "127.0.0.1")
        attack.tried("every port", len(ports) >= len(doors(platform)))
