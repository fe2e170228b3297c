"""The supervisord of a stack, which keeps the stack's services alive.

    supervisor = Supervisor(StackRoot.of(project, "flights-dev"))
    supervisor.start()
    for process in supervisor.processes():
        print(process.name, process.state, process.pid)

Imports no Pulumi: the command line uses it too.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....runtime.common.errors import ConfigError, NotFoundError, PlatformError, ServiceError
from ....runtime.common.files import write_private
from ...layout import StackRoot
from . import launch
from .supervisor_rpc import ALREADY_ADDED, BAD_NAME, NOT_RUNNING, Fault, call

_START_SECONDS = 30.0
_PATIENCE = 10.0
_SELF = "supervisord"

# `silent`: without it, supervisord repeats its log on standard output.
_DAEMON = """\
[unix_http_server]
file={socket}
chmod=0600

[supervisord]
nodaemon=true
silent=true
logfile={log}
logfile_maxbytes=10MB
logfile_backups=3
pidfile={run}/supervisord.pid
childlogdir={logs}
identifier=tidemill

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[include]
files={run}/conf.d/*.conf
"""

# The pause between failed starts grows by a second each time, without a limit: it is 90 s after an hour of failures.
# A service must never be given up, so the number of tries is large.
_PROGRAM = """\
[program:{name}]
command={command}
environment={marker}
autostart=true
autorestart=true
startsecs=1
startretries=100000
stopwaitsecs={stop_seconds}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={log}
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=3
"""


@dataclass(frozen=True)
class ProcessInfo:
    """A service in supervisord's view.

    Attributes:
        name: name of the service.
        state: RUNNING, STARTING, BACKOFF, STOPPED, FATAL or EXITED; without a running supervisord, UNSUPERVISED or
            STOPPED.
        pid: number of its first process, or None.
        uptime: seconds since its start, or None.
        rss: memory of its whole process group in bytes, or None.
        exit: its last exit code, or None.
    """

    name: str
    state: str
    pid: int | None = None
    uptime: float | None = None
    rss: int | None = None
    exit: int | None = None


@dataclass(frozen=True)
class Program:
    """State of a service, and the time of its last start in seconds since the epoch."""

    state: str
    started: int


class Supervisor:
    """The supervisord of the stack below `root`."""

    def __init__(self, root: StackRoot) -> None:
        self.root = StackRoot(Path(os.path.realpath(root.path)))

    def running(self) -> bool:
        """Return whether supervisord answers."""
        try:
            self._call("supervisor.getState", timeout=10.0)
        except OSError:
            return False
        return True

    def start(self) -> bool:
        """Start supervisord with all its services; return False if it already runs.

        What a dead supervisord left running is ended first, so no service ever runs twice. Concurrent calls start one
        supervisord.

        Raises:
            ServiceError: supervisord does not start.
        """
        self.root.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            return self._start()

    def stop(self) -> None:
        """Stop every service and supervisord, with everything they started in the background."""
        if not self.root.run.is_dir():
            # The folder was removed while supervisord was running.
            self._end_marked(self._mine)
            return
        with self._locked():
            if self.running():
                # Its own shutdown stops one service after another, which takes longer.
                with contextlib.suppress(OSError, Fault):
                    self._call("supervisor.stopAllProcesses", timeout=120.0)
            self._end_daemon()
            self._end_marked(self._mine)

    def restart(self, name: str) -> None:
        """Stop the service `name` and start it again.

        Raises:
            NotFoundError: there is no such service.
            PlatformError: supervisord is not running.
        """
        known = [process.name for process in self.processes()]
        if name not in known:
            raise NotFoundError(
                "no such service", field="service", value=name, hint=f"use one of: {', '.join(sorted(known)) or 'none'}"
            )
        try:
            with contextlib.suppress(Fault):
                self._call("supervisor.stopProcess", name, timeout=120.0)
            self._call("supervisor.startProcess", name, False)
        except OSError:
            raise PlatformError(
                "supervisord, which restarts services, is not running",
                field="service",
                value=name,
                hint="run `tidemill start`, which restarts all services",
            ) from None

    def processes(self) -> list[ProcessInfo]:
        """Return all services, sorted by name."""
        try:
            answer = self._call("supervisor.getAllProcessInfo")
        except OSError:
            return [self._without_daemon(name) for name in self._names()]
        return sorted((_process(entry) for entry in answer), key=lambda process: process.name)

    def _without_daemon(self, name: str) -> ProcessInfo:
        """Return the service `name` from its record: its processes outlive a supervisord that was killed."""
        record = launch.read_record(self.root.record(name))
        pids = launch.recorded(self.root.record(name))
        if record is None or not pids:
            return ProcessInfo(name, "STOPPED")
        pid = int(record["pid"]) if launch.alive(record) else min(pids)
        return ProcessInfo(name, "UNSUPERVISED", pid, _uptime(pid), _memory(pid))

    def program(self, name: str) -> Program | None:
        """Return the state of the service `name`; None if supervisord does not know it or is not running."""
        try:
            entry = self._call("supervisor.getProcessInfo", name)
        except OSError:
            return None
        except Fault as fault:
            if fault.faultCode == BAD_NAME:
                return None
            raise
        return Program(str(entry["statename"]), int(entry["start"]))

    def has(self, name: str, digest: str) -> bool:
        """Return whether the service `name` was last applied with the spec `digest` and by this code and Python.

        Another version of tidemill, or a moved Python, has left a program configuration whose command may no longer
        exist: a service that crashes could then not be restarted.
        """
        try:
            spec: Any = json.loads(self._spec(name).read_text(encoding="utf-8"))
            configuration = self._conf(name).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return False
        return spec.get("digest") == digest and configuration == self._program(name, spec)

    def apply(self, name: str) -> None:
        """Restart the service `name` with its launch spec, which is in its folder."""
        self.root.conf.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.end(name)
        with self._locked():
            self._configure(name)
            if not self._start():
                self._forget(name)
                self._call("supervisor.reloadConfig")
                try:
                    self._call("supervisor.addProcessGroup", name)
                except Fault as fault:
                    if fault.faultCode != ALREADY_ADDED:
                        raise

    def end(self, name: str) -> None:
        """Stop the service `name` and wait for the end of its whole process group."""
        try:
            self._call("supervisor.stopProcess", name, timeout=120.0)
        except OSError:
            pass
        except Fault as fault:
            if fault.faultCode not in {BAD_NAME, NOT_RUNNING}:
                raise ServiceError(f"does not stop ({fault.faultString})", field=name) from None
        launch.end(lambda: launch.recorded(self.root.record(name)), _PATIENCE)

    def remove(self, name: str) -> None:
        """Stop the service `name` and remove its configuration; end supervisord with the last service."""
        self.end(name)
        if not self.root.run.is_dir():
            return
        with self._locked():
            self._conf(name).unlink(missing_ok=True)
            self.root.record(name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self._forget(name)
                self._call("supervisor.reloadConfig")
            if not self._names():
                self._end_daemon()

    def _forget(self, name: str) -> None:
        try:
            self._call("supervisor.removeProcessGroup", name)
        except Fault as fault:
            if fault.faultCode != BAD_NAME:
                raise ServiceError(f"does not stop ({fault.faultString})", field=name) from None

    def _spec(self, name: str) -> Path:
        return self.root.service(name) / "spec.json"

    def _conf(self, name: str) -> Path:
        return self.root.conf / f"{name}.conf"

    def _program(self, name: str, spec: Mapping[str, Any]) -> str:
        marker = f'{launch.MARKER}="{self._marker(name)}"'
        return _PROGRAM.format(
            name=name,
            command=_escaped(shlex.join(launch.command(self._spec(name)))),
            marker=_escaped(marker),
            stop_seconds=max(1, round(spec["stopSeconds"])),
            log=_escaped(str(self.root.log(name))),
        )

    def _configure(self, name: str) -> None:
        spec: Any = json.loads(self._spec(name).read_text(encoding="utf-8"))
        write_private(self._conf(name), self._program(name, spec))

    def _names(self) -> list[str]:
        return sorted(path.stem for path in self.root.conf.glob("*.conf"))

    def _marker(self, name: str) -> str:
        return f"{self.root.path}/{name}"

    def _mine(self, marker: str) -> bool:
        return marker.startswith(f"{self.root.path}/")

    def _call(self, method: str, *arguments: Any, timeout: float = 30.0) -> Any:
        return call(self.root.socket, method, *arguments, timeout=timeout)

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        with open(self.root.run / "lock", "a", opener=launch.private) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _start(self) -> bool:
        if self.running():
            return False
        self._end_daemon()
        for name in self._names():
            # Another version of tidemill may have written it; see `has`.
            with contextlib.suppress(OSError, ValueError):
                self._configure(name)
        conf = self._write_conf()
        environment = launch.inherited(os.environ) | {launch.MARKER: self._marker(_SELF)}
        errors = self.root.logs / "supervisord.err"
        with open(errors, "w", opener=launch.private) as output:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "supervisor.supervisord", "--configuration", str(conf)],
                cwd=self.root.run,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=output,
                start_new_session=True,
                umask=0o077,
            )
        until = time.monotonic() + _START_SECONDS
        while not self.running():
            if daemon.poll() is not None or time.monotonic() > until:
                self._end_daemon()
                tail = errors.read_text(encoding="utf-8", errors="replace")[-2000:]
                raise ServiceError("does not start", field=_SELF, log_tail=tail)
            time.sleep(0.02)
        # Supervisord outlives this process on purpose; without this, Python warns when `daemon` is collected.
        daemon.returncode = 0
        return True

    def _write_conf(self) -> Path:
        self.root.conf.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        socket = self.root.socket
        if socket.parent != self.root.run:
            _private_folder(socket.parent)
            write_private(self.root.kept_socket, str(socket))
        socket.unlink(missing_ok=True)
        conf = self.root.run / "supervisord.conf"
        text = _DAEMON.format(
            socket=_escaped(str(socket)),
            run=_escaped(str(self.root.run)),
            logs=_escaped(str(self.root.logs)),
            log=_escaped(str(self.root.log(_SELF))),
        )
        write_private(conf, text)
        return conf

    def _end_daemon(self) -> None:
        """End supervisord, even if it hangs, and then what it left running."""
        self._end_marked(self._marker(_SELF).__eq__)
        records = [self.root.record(name) for name in self._names()]
        launch.end(lambda: [pid for record in records for pid in launch.recorded(record)], _PATIENCE)
        socket = self.root.socket
        socket.unlink(missing_ok=True)
        if socket.parent != self.root.run:
            with contextlib.suppress(OSError):
                socket.parent.rmdir()
            self.root.kept_socket.unlink(missing_ok=True)

    def _end_marked(self, mine: Callable[[str], bool]) -> None:
        """End every process of this user whose marker `mine` accepts."""

        def find() -> list[int]:
            found: list[int] = []
            for pid in launch.processes():
                marker = None if pid == os.getpid() else launch.marker_of(pid)
                if marker and mine(marker) and launch.start_mark(pid):
                    found.append(pid)
            return found

        launch.end(find, 2 * _PATIENCE)


def _process(entry: dict[str, Any]) -> ProcessInfo:
    pid = int(entry["pid"]) or None
    return ProcessInfo(
        name=str(entry["name"]),
        state=str(entry["statename"]),
        pid=pid,
        uptime=float(entry["now"] - entry["start"]) if pid else None,
        rss=_memory(pid) if pid else None,
        exit=None if pid or not entry["stop"] else int(entry["exitstatus"]),
    )


def _memory(pid: int) -> int | None:
    import psutil

    try:
        first = psutil.Process(pid)
        family = [first, *first.children(recursive=True)]
    except psutil.Error:
        return None
    total = 0
    for process in family:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def _uptime(pid: int) -> float | None:
    import psutil

    try:
        return time.time() - psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def _escaped(text: str) -> str:
    """Return `text` escaped for supervisord's configuration."""
    if "\n" in text or '"' in text.removeprefix(f'{launch.MARKER}="').removesuffix('"') or re.search(r"\s[;#]", text):
        raise ConfigError("supervisord cannot read this path", field="root", value=text, hint="move the project")
    return text.replace("%", "%%")


def _private_folder(path: Path) -> None:
    """Create `path` if it does not exist; refuse one that another user may have created."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if not path.is_dir() or path.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PlatformError("is not your own private folder", field="socket", value=str(path), hint="remove it")
