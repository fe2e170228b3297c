"""A real platform in a copy of the project, driven through the command line as a user drives it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
from tidemill.components.layout import StackRoot

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.prefix) / "bin"
T = TypeVar("T")
LOOPBACK = ("127.", "::1", "::ffff:127.")


def copy_project(to: Path) -> Path:
    """Copy the project as Git would commit it to `to`, make it a repository with one commit, and return it."""
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.is_file() and not source.is_symlink():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, to / name)
    # Pulumi.yaml finds the provider in the project's own environment.
    (to / ".venv").symlink_to(sys.prefix, target_is_directory=True)
    git(to, "init", "--quiet", "--initial-branch=main")
    git(to, "add", "--all")
    git(to, "commit", "--quiet", "--message", "A copy of the project")
    return to


def git(folder: Path, *args: str) -> str:
    """Run Git in `folder` under a neutral identity and return what it prints."""
    return subprocess.run(
        ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", *args],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def wait_for(what: str, ask: Callable[[], T | None], timeout: float, every: float = 1.0) -> T:
    """Ask until the answer is not None (or False), and return it; fail after `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        answer = ask()
        if answer is not None and answer is not False:
            return answer
        assert time.monotonic() < end, f"waited {timeout:.0f} s for {what}"
        time.sleep(every)


@dataclass
class Outgoing:
    """Watches the processes below a stack's supervisord for connections which leave the machine."""

    root: StackRoot
    seen: set[tuple[str, str, int]] = field(default_factory=set)
    samples: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            for process in processes_of(self.root):
                try:
                    for connection in process.net_connections("inet"):
                        if connection.raddr and not connection.raddr.ip.startswith(LOOPBACK):
                            self.seen.add((process.name(), connection.raddr.ip, connection.raddr.port))
                except psutil.Error:
                    continue
            self.samples += 1


def processes_of(root: StackRoot) -> list[psutil.Process]:
    """Return every process which belongs to the stack at `root`: those whose environment or command line names it."""
    marked: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            environment = process.environ() if process.uids().real == os.getuid() else {}
        except psutil.Error:
            continue
        if process.pid != os.getpid() and (
            environment.get("TIDEMILL_SERVICE", "").startswith(str(root.path)) or str(root.path) in command
        ):
            marked.append(process)
    return marked


class RunningPlatform:
    """A platform which a test drives: the command line, and the servers' own interfaces."""

    def __init__(self, project: Path, stack: str) -> None:
        self.project = project
        self.stack = stack
        self.root = StackRoot(project / ".tidemill" / "stacks" / stack)
        self.outgoing = Outgoing(self.root)
        self.up_output = ""

    def environment(self, **extra: str) -> dict[str, str]:
        """Return this process's environment without what would point tidemill elsewhere."""
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("TIDEMILL_", "PULUMI_")) or k == "TIDEMILL_CACHE"
        }
        return {**kept, "PATH": f"{BIN}{os.pathsep}{kept.get('PATH', '')}", **extra}

    def run(self, *args: str, timeout: float = 600, **env: str) -> subprocess.CompletedProcess[str]:
        """Run `tidemill ARGS` in the project."""
        return subprocess.run(
            [str(BIN / "tidemill"), *args],
            cwd=self.project,
            env=self.environment(**env),
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def check(self, *args: str, timeout: float = 600, **env: str) -> str:
        """Run `tidemill ARGS`, which must succeed, and return its standard output."""
        done = self.run(*args, timeout=timeout, **env)
        assert done.returncode == 0, f"tidemill {' '.join(args)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def python(self, *args: str, timeout: float = 900) -> str:
        """Run `python ARGS` in the project; it must succeed."""
        done = subprocess.run(
            [sys.executable, *args],
            cwd=self.project,
            env=self.environment(TIDEMILL_STACK=self.stack),
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, f"python {' '.join(args)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def up(self) -> None:
        self.outgoing.start()
        self.up_output = self.check("up", "--yes", "--stack", self.stack, timeout=1800)

    def close(self) -> None:
        """Delete the stack; end, by their ids, processes which that left."""
        self.outgoing.stop()
        try:
            self.check("destroy", "--delete-data", "--yes", "--stack", self.stack)
        finally:
            left = processes_of(self.root)
            for process in left:
                process.kill()
            psutil.wait_procs(left, timeout=10)

    def status(self) -> dict[str, Any]:
        """Return what `status --json` says; its exit code 1 says that something is not well."""
        done = self.run("status", "--json", "--stack", self.stack)
        assert done.returncode in (0, 1), done.stderr
        return json.loads(done.stdout)

    def url(self, service: str) -> str:
        ports = json.loads(self.root.endpoints.read_text())
        return f"http://127.0.0.1:{ports[service]}"

    def secret(self, name: str) -> str:
        return (self.root.secrets / name).read_text().strip()

    def client(self, service: str, *, user: str | None = None, secret: str | None = None) -> httpx.Client:
        """Return a client of `service` which shows `secret`: as basic authentication of `user`, or as bearer token."""
        if secret is None:
            return httpx.Client(base_url=self.url(service), timeout=60)
        value = self.secret(secret)
        if user:
            return httpx.Client(base_url=self.url(service), auth=(user, value), timeout=60)
        return httpx.Client(base_url=self.url(service), headers={"Authorization": f"Bearer {value}"}, timeout=60)

    def pids(self) -> dict[str, int]:
        return {name: json.loads((self.root.run / f"{name}.json").read_text())["pid"] for name in self.services()}

    def services(self) -> list[str]:
        return sorted(path.name for path in (self.root.path / "services").iterdir())
