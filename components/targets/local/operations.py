"""Operations on this machine, through supervisord and the stack's files. Imports no Pulumi."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal

from ....runtime.common.errors import NotFoundError, TidemillError
from ...layout import StackRoot
from ...provider.local.files import secret_value
from ...provider.local.launch import recorded
from ...provider.local.supervisor import ProcessInfo, Supervisor
from ..http_get import http_get
from ..operations import ServiceState

_State = Literal["running", "starting", "stopped", "failing", "unsupervised"]
_STATES: dict[str, _State] = {
    "RUNNING": "running",
    "STARTING": "starting",
    "BACKOFF": "failing",
    "FATAL": "failing",
    "EXITED": "failing",
    "UNSUPERVISED": "unsupervised",
}
_DISTRIBUTIONS = {"mlflow": "mlflow"}
_TOOLS = ("lakefs", "prometheus", "alertmanager", "grafana")
_LOOK_EVERY = 0.3


def kept_ports(root: StackRoot) -> dict[str, int]:
    """Return endpoint -> port of the stack; empty if none were assigned yet."""
    try:
        found = json.loads(root.endpoints.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {str(name): int(port) for name, port in found.items()} if isinstance(found, dict) else {}


class LocalOperations:
    """The processes and files of a stack; see `Operations`.

    Args:
        root: the stack's folder.
    """

    def __init__(self, root: StackRoot) -> None:
        self._root = root

    def made(self) -> bool:
        """See `Operations`."""
        return self._root.path.is_dir()

    def services(self) -> list[ServiceState]:
        """See `Operations`."""
        processes = Supervisor(self._root).processes()
        known = {process.name for process in processes}
        processes += [ProcessInfo(name, "STOPPED") for name in self._made() if name not in known]
        return [
            ServiceState(
                name=process.name,
                state=_STATES.get(process.state, "stopped"),
                pid=process.pid,
                memory_mb=None if process.rss is None else round(process.rss / 1e6, 1),
                uptime_seconds=process.uptime,
                problem=None if process.pid else "does not run",
            )
            for process in sorted(processes, key=lambda process: process.name)
        ]

    def runs(self, service: str) -> bool:
        """See `Operations`. A service can run even if its supervisord has died."""
        return bool(recorded(self._root.record(service)))

    def url(self, service: str) -> str | None:
        """See `Operations`."""
        port = kept_ports(self._root).get(service)
        return None if port is None else f"http://127.0.0.1:{port}"

    def version(self, service: str) -> str | None:
        """See `Operations`."""
        if service in _TOOLS:
            return _tool_version(service)
        try:
            return metadata.version(_DISTRIBUTIONS.get(service, "tidemill"))
        except metadata.PackageNotFoundError:
            return None

    def stop(self) -> int:
        """See `Operations`."""
        supervisor = Supervisor(self._root)
        ran = sum(1 for process in supervisor.processes() if process.pid)
        supervisor.stop()
        return ran

    def start(self) -> None:
        """See `Operations`."""
        Supervisor(self._root).start()

    def restart(self, service: str) -> None:
        """See `Operations`."""
        Supervisor(self._root).restart(service)

    def logged(self) -> list[str]:
        """See `Operations`."""
        return sorted({*self._made(), *(path.stem for path in self._root.logs.glob("*.log"))})

    def logs(self, name: str, lines: int, *, follow: bool = False) -> Iterator[str]:
        """See `Operations`."""
        path = self._root.log(name)
        if not path.exists():
            raise NotFoundError("has no log yet", field=name, value=str(path))
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from (line.rstrip("\n") for line in deque(file, maxlen=lines))
        if follow:
            yield from follow_file(path)

    def log_place(self, name: str) -> str:
        """See `Operations`."""
        return str(self._root.log(name))

    def secret(self, name: str) -> str:
        """See `Operations`."""
        return secret_value(self._root, name)

    def secret_place(self, name: str) -> str:
        """See `Operations`."""
        return str(self._root.secrets / name)

    def secret_file(self, name: str) -> Path | None:
        """See `Operations`."""
        path = self._root.secrets / name
        return path if path.is_file() else None

    def ask(self, service: str, path: str, *, token: str | None = None) -> tuple[int, bytes] | None:
        """See `Operations`."""
        url = self.url(service)
        if url is None:
            return None
        try:
            value = self.secret(token) if token else None
        except NotFoundError:
            return None
        return http_get(f"{url}{path}", token=value)

    def _made(self) -> list[str]:
        folder = self._root.path / "services"
        return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def follow_file(path: Path) -> Iterator[str]:
    """Yield the lines that are appended to `path`, across rotations, until the caller stops."""
    file = path.open(encoding="utf-8", errors="replace")
    file.seek(0, 2)
    try:
        while True:
            line = file.readline()
            if line:
                yield line.rstrip("\n")
                continue
            time.sleep(_LOOK_EVERY)
            if path.exists() and path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                file.close()
                file = path.open(encoding="utf-8", errors="replace")
            elif path.exists() and path.stat().st_size < file.tell():
                file.seek(0)
    finally:
        file.close()


def _tool_version(name: str) -> str | None:
    from ... import tools

    try:
        box = tools.default_toolbox()
        package, program = box.package_of(name)
        on_path = box.on_path(program)
        if on_path and on_path[1] and on_path[0] == box.find(name):
            return on_path[1]
        cached = box.cached(package)
    except TidemillError:
        return None
    return cached.version if cached else None
