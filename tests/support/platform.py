"""A real platform in a copy of the project, driven through the command line as a user drives it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
from tidemill.components import tools
from tidemill.components.layout import StackRoot
from tidemill.components.targets.operations import Operations
from tidemill.runtime.common.errors import ToolError
from tidemill.stacks.loading import load_stack, project_settings
from tidemill.stacks.operations import stack_operations

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
    try:
        tools.find("grafana")
    except ToolError:
        # `up` would look for it in the network, where a test which watches for that must find nobody.
        flights = to / "stacks/config/Pulumi.flights-dev.yaml"
        flights.write_text(flights.read_text().replace("grafana: auto", 'grafana: "off"'))
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
class Watch:
    """Looks, again and again, at the processes of a stack and at those which an `up` of it started.

    Attributes:
        outside: process name, address and port of each connection which leaves the machine.
        commands: every command line seen, its words separated by zero bytes.
        runs: process numbers whose children are watched too.
        samples: how often it has looked.
    """

    root: StackRoot
    outside: set[tuple[str, str, int]] = field(default_factory=set)
    commands: set[str] = field(default_factory=set)
    runs: set[int] = field(default_factory=set)
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
            for process in self._watched():
                try:
                    self.commands.add("\0".join(process.cmdline()))
                    for connection in process.net_connections("inet"):
                        if connection.raddr and not connection.raddr.ip.startswith(LOOPBACK):
                            self.outside.add((process.name(), connection.raddr.ip, connection.raddr.port))
                except psutil.Error:
                    continue
            self.samples += 1

    def _watched(self) -> list[psutil.Process]:
        """Return what belongs to the stack or to a run, and everything below that."""
        parents = {process.pid: process.info["ppid"] for process in psutil.process_iter(["ppid"])}
        chosen = {process.pid for process in processes_of(self.root)} | (self.runs & set(parents))
        while more := {pid for pid, parent in parents.items() if parent in chosen} - chosen:
            chosen |= more
        found: list[psutil.Process] = []
        for pid in chosen:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        return found


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

    def __init__(self, project: Path, stack: str, *, bin_folder: Path = BIN) -> None:
        self.bin = bin_folder
        self.project = project
        self.stack = stack
        self.root = StackRoot(project / ".tidemill" / "stacks" / stack)
        self.watch = Watch(self.root)
        self.up_output = ""
        self.extra: dict[str, str] = {}

    def environment(self, **extra: str) -> dict[str, str]:
        """Return this process's environment without what would point tidemill elsewhere."""
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("TIDEMILL_", "PULUMI_")) or k == "TIDEMILL_CACHE"
        }
        kept |= self.extra
        return {**kept, "PATH": f"{self.bin}{os.pathsep}{kept.get('PATH', '')}", **extra}

    def run(self, *args: str, timeout: float = 600, **env: str) -> subprocess.CompletedProcess[str]:
        """Run `tidemill ARGS` in the project."""
        return subprocess.run(
            [str(self.bin / "tidemill"), *args],
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
            [str(self.bin / "python"), *args],
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

    def start(self, *args: str, stdin: int = subprocess.DEVNULL, **env: str) -> subprocess.Popen[str]:
        """Start `tidemill ARGS` in the project, in a session of its own; both its outputs are one pipe."""
        return subprocess.Popen(
            [str(self.bin / "tidemill"), *args],
            cwd=self.project,
            env=self.environment(**env),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def answer(self, reply: str, *args: str, timeout: float = 120) -> tuple[int, str]:
        """Run `tidemill ARGS` with a terminal to ask, which answers `reply`; return its exit code and what it said."""
        ours, theirs = os.openpty()
        try:
            with self.start(*args, stdin=theirs) as started:
                os.write(ours, f"{reply}\n".encode())
                said, _ = started.communicate(timeout=timeout)
        finally:
            os.close(ours)
            os.close(theirs)
        return started.returncode, said

    def up(self) -> None:
        """Bring the platform up, watched from now on."""
        self.watch.start()
        with self.start("up", "--yes", "--stack", self.stack) as started:
            self.watch.runs.add(started.pid)
            self.up_output, _ = started.communicate(timeout=1800)
        self.watch.runs.discard(started.pid)
        assert started.returncode == 0, f"tidemill up: exit {started.returncode}\n{self.up_output}"

    def close(self) -> None:
        """Delete the stack; end, by their ids, processes which that left."""
        self.watch.stop()
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

    def operations(self) -> Operations:
        """Return what operates the platform, as the command line does."""
        project_settings.cache_clear()
        return stack_operations(load_stack(self.project, self.stack))

    def running(self) -> Mapping[str, object]:
        """Return service -> what tells this run of its program from another one."""
        return self.pids()

    def assert_gone(self) -> None:
        """Nothing of a stack which was destroyed is left."""
        assert not processes_of(self.root)
        assert not self.root.path.exists()

    def pids(self) -> dict[str, int]:
        return {name: json.loads((self.root.run / f"{name}.json").read_text())["pid"] for name in self.services()}

    def pid(self, service: str) -> int:
        """Return the id of a service's process, as this machine numbers it."""
        return self.pids()[service]

    def services(self) -> list[str]:
        return sorted(path.name for path in (self.root.path / "services").iterdir())

    def alive(self) -> dict[str, int]:
        """Return service -> process number of those whose health check passes."""
        # A command of the last release does not tell `alive` from `healthy`.
        services = self.status()["services"]
        return {each["name"]: each["pid"] for each in services if each.get("alive", each["healthy"])}

    def all_alive(self, names: set[str] | None = None) -> dict[str, int] | None:
        """Return what `alive` does if it is all of `names` (default: of the stack's services), else None."""
        now = self.alive()
        return now if set(now) == (names or set(self.services())) else None

    def urns(self) -> list[str]:
        """Return the URN of every resource in the engine's state, sorted; nothing may be half-done in it."""
        (file,) = self.state.rglob(f"stacks/*/{self.stack}.json")
        latest = json.loads(file.read_text())["checkpoint"]["latest"]
        assert not latest.get("pending_operations")
        return sorted(resource["urn"] for resource in latest["resources"])

    @property
    def state(self) -> Path:
        return self.project / ".tidemill" / "state"

    def assert_no_lock_held(self) -> None:
        """Neither the engine nor a run of ours holds the stack."""
        assert not [path for path in self.state.rglob("locks/**/*") if path.is_file()]
        lock = self.project / ".tidemill" / "locks" / self.stack
        if lock.exists():  # the file may stay, the lock on it ends with its holder
            with lock.open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def assert_one_of_each(self) -> None:
        """Every service has one process group, and nothing else of the stack runs but its supervisord."""
        groups: dict[str, set[int]] = {}
        for process in processes_of(self.root):
            try:
                service = process.environ().get("TIDEMILL_SERVICE")
                if service:
                    groups.setdefault(service.rsplit("/", 1)[-1], set()).add(os.getpgid(process.pid))
            except (psutil.Error, ProcessLookupError):
                continue
        assert len(groups.pop("supervisord", set())) == 1
        assert set(groups) == set(self.services())
        assert all(len(group) == 1 for group in groups.values()), groups
