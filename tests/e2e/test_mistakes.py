"""One clear sentence and the right exit code for each mistake, and nothing half-made."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.platform import BIN, RunningPlatform, processes_of
from tests.support.small import CONFIG, STACK, small_project

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def refused(platform: RunningPlatform, code: int, *words: str, args: tuple[str, ...] = (), **env: str) -> str:
    done = platform.run("up", "--yes", "--no-wait", "--stack", STACK, *args, **env)
    said = done.stdout + done.stderr
    assert done.returncode == code, f"exit {done.returncode}\n{said}"
    assert "Traceback" not in said
    for word in words:
        assert word in said, f"{word!r} is not in:\n{said}"
    assert not processes_of(platform.root), "something was left running"
    return said


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("config:\n  tidemill:stack: [unclosed\n", (f"Pulumi.{STACK}.yaml",)),
        (CONFIG + "    target: moon\n", ("target", "moon", "local")),
        (CONFIG + "    monitorin: {}\n", ("monitorin", "monitoring")),
        (CONFIG.replace("harbour", "Harbour"), ("team", "Harbour")),
        (CONFIG + "    monitoring: {retention: soon}\n", ("monitoring.retention", "soon", "15s")),
    ],
    ids=["bad-yaml", "unknown-target", "unknown-key", "bad-name", "bad-duration"],
)
def test_a_wrong_config(tmp_path: Path, config: str, words: tuple[str, ...]) -> None:
    platform = small_project(tmp_path, config)
    refused(platform, 2, *words)
    assert not (platform.project / ".tidemill").exists(), "something was made before the config was read"


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        platform = small_project(tmp_path, CONFIG + f"    ports: {{prometheus: {port}}}\n")
        done = platform.run("up", "--yes", "--no-wait", "--stack", STACK)
    try:
        said = done.stdout + done.stderr
        assert done.returncode == 3, said
        assert "Traceback" not in said
        assert str(port) in said
        assert "prometheus" in said
        # The mistake over, the same command goes on from there.
        platform.check("up", "--yes", "--no-wait", "--stack", STACK)
    finally:
        platform.close()


def test_a_wrong_passphrase_and_two_at_once(tmp_path: Path) -> None:
    platform = small_project(tmp_path)
    platform.check("up", "--yes", "--no-wait", "--stack", STACK)
    try:
        done = platform.run("up", "--yes", "--no-wait", "--stack", STACK, PULUMI_CONFIG_PASSPHRASE="not-the-one")
        said = done.stdout + done.stderr
        assert done.returncode == 2, said
        assert "passphrase" in said
        assert "Traceback" not in said

        first = subprocess.Popen(
            [str(BIN / "tidemill"), "up", "--yes", "--no-wait", "--stack", STACK],
            cwd=platform.project, env=platform.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(0.8)
        second = platform.run("up", "--yes", "--no-wait", "--stack", STACK)
        assert first.wait() == 0
        assert second.returncode != 0, "two `up` at once"
        assert "Traceback" not in second.stderr
        assert "running" in second.stdout + second.stderr or "progress" in second.stdout + second.stderr
    finally:
        platform.close()


def test_a_missing_tool(tmp_path: Path) -> None:
    """Without the engine, a compiler, or a network: one sentence which says how to get it."""
    platform = small_project(tmp_path)
    hidden = tmp_path / "bin"
    hidden.mkdir()
    for name in ("git", "env", "uname"):
        (hidden / name).symlink_to(f"/usr/bin/{name}")
    said = refused(
        platform, 3, "pulumi", PATH=str(hidden), TIDEMILL_CACHE=str(tmp_path / "empty"),
        HTTPS_PROXY="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9",
    )  # fmt: skip
    assert "go" in said.lower()


def test_a_path_which_cannot_be_written(tmp_path: Path) -> None:
    """Root may write everywhere but into the kernel's own file systems; and a file is no folder for anyone."""
    platform = small_project(tmp_path)
    (tmp_path / "file").write_text("in the way")
    for home in ("/proc/self/fd/tidemill", str(tmp_path / "file")):
        refused(platform, 2, home, TIDEMILL_HOME=home)
