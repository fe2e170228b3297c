"""One clear sentence and the right exit code for each mistake, and nothing half-made."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.support.platform import RunningPlatform, processes_of, wait_for
from tests.support.small import CONFIG, STACK, small_project

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def refused(platform: RunningPlatform, code: int, *words: str, **env: str) -> str:
    done = platform.run("up", "--yes", "--no-wait", "--stack", STACK, timeout=600, **env)
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
        (CONFIG.replace('"off"', '"off", retention: soon'), ("monitoring.retention", "soon", "15s")),
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
        refused(platform, 3, "ports.prometheus", str(port), f"pid {os.getpid()}")
    assert not platform.root.path.exists(), "something was made before the port was looked at"
    # The mistake over, the same command goes on from there.
    try:
        platform.check("up", "--yes", "--no-wait", "--stack", STACK)
        assert platform.url("prometheus").endswith(f":{port}")
    finally:
        platform.close()


def test_two_at_once_and_a_wrong_passphrase(tmp_path: Path) -> None:
    platform = small_project(tmp_path)
    lock = platform.project / ".tidemill" / "locks" / STACK
    try:
        with platform.start("up", "--yes", "--no-wait", "--stack", STACK) as first:
            holds = lambda: lock.exists() and lock.read_text() == f"{first.pid}\n"  # noqa: E731
            wait_for("the first run to hold the lock", holds, 30, every=0.02)
            second = platform.run("up", "--yes", "--no-wait", "--stack", STACK)
            assert first.poll() is None, "the first run was over too soon for this test"
            said, _ = first.communicate(timeout=300)
        assert first.returncode == 0, said
        assert second.returncode == 3
        assert second.stderr.strip() == (
            f"tidemill: {STACK}: another tidemill run is in progress (pid {first.pid}); "
            "wait for its end, then run this again"
        )
        assert not second.stdout
        platform.assert_one_of_each()

        done = platform.run("up", "--yes", "--no-wait", "--stack", STACK, PULUMI_CONFIG_PASSPHRASE="not-the-one")
        said = done.stdout + done.stderr
        assert done.returncode == 2, said
        assert "wrong passphrase" in said
        assert "Traceback" not in said
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
