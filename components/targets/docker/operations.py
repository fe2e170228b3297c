"""Operations on docker, through the daemon's SDK. Imports no Pulumi."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib import metadata
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....runtime.common.errors import NotFoundError
from ...images.container_layout import PORT, SECRETS
from ...layout import StackRoot
from ...provider.docker.daemon import SERVICE, STACK, connect, talking
from ...tools.table import IMAGES
from ..http_get import http_get
from ..local.operations import LocalOperations
from ..operations import ServiceState
from .settings import DockerSettings

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

_STOP_SECONDS = 60
# Runs in the container of a service without a published port, and reads the secret's file there.
_GET_SCRIPT = """
import json, sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1])
if len(sys.argv) > 2:
    request.add_header("Authorization", "Bearer " + open(sys.argv[2]).read().strip())
try:
    answer = urllib.request.urlopen(request, timeout=5)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, answer.read().decode()]))
"""


class DockerOperations:
    """The containers of a stack and its files on this machine; see `Operations`.

    Args:
        stack: TEAM-ENVIRONMENT.
        root: the stack's folder on this machine.
        settings: the block `docker` of its config.
    """

    def __init__(self, stack: str, root: StackRoot, settings: DockerSettings) -> None:
        self._stack = stack
        self._root = root
        self._host = settings.host
        # Ports, secrets and logs of jobs are kept on this machine, as on `local`.
        self._files = LocalOperations(root)

    def made(self) -> bool:
        """See `Operations`."""
        return self._root.path.is_dir()

    def services(self) -> list[ServiceState]:
        """See `Operations`."""
        client = self._client()
        containers = self._containers()
        if not containers:
            return []
        with talking("containers"), ThreadPoolExecutor(max_workers=16) as pool:
            return list(pool.map(_state, repeat(client), containers))

    def runs(self, service: str) -> bool:
        """See `Operations`."""
        return any(found.name == service and found.state == "running" for found in self.services())

    def url(self, service: str) -> str | None:
        """See `Operations`."""
        return self._files.url(service)

    def version(self, service: str) -> str | None:
        """See `Operations`."""
        if service in IMAGES:
            image = self._container(service).attrs["Config"]["Image"].partition("@")[0]
            return image.rpartition(":")[2].removeprefix("v") or None
        return metadata.version("mlflow" if service == "mlflow" else "tidemill")

    def stop(self) -> int:
        """See `Operations`. Stops Postgres last."""
        containers = [container for container in self._containers() if container.status == "running"]
        others = [container for container in containers if _name(container) != "postgres"]
        with talking("containers"), ThreadPoolExecutor(max_workers=16) as pool:
            list(pool.map(_stop, others))
            for container in containers:
                if container not in others:
                    _stop(container)
        return len(containers)

    def start(self) -> None:
        """See `Operations`. Starts Postgres first."""
        with talking("containers"):
            for container in sorted(self._containers(), key=lambda container: _name(container) != "postgres"):
                container.start()

    def restart(self, service: str) -> None:
        """See `Operations`."""
        container = self._container(service)
        with talking(service):
            container.restart(timeout=_stop_seconds(container))

    def logged(self) -> list[str]:
        """See `Operations`."""
        return sorted({*map(_name, self._containers()), *self._files.logged()})

    def logs(self, name: str, lines: int, *, follow: bool = False) -> Iterator[str]:
        """See `Operations`."""
        if name not in map(_name, self._containers()):
            yield from self._files.logs(name, lines, follow=follow)  # of a job
            return
        container = self._container(name)
        with talking(name):
            rest = b""
            chunks: Any = container.logs(stream=True, follow=follow, tail=lines)
            for chunk in chunks:
                *whole, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in whole)
            if rest:
                yield rest.decode(errors="replace")

    def log_place(self, name: str) -> str:
        """See `Operations`."""
        return f"docker logs tidemill-{self._stack}-{name}"

    def secret(self, name: str) -> str:
        """See `Operations`."""
        return self._files.secret(name)

    def secret_place(self, name: str) -> str:
        """See `Operations`."""
        return self._files.secret_place(name)

    def secret_file(self, name: str) -> Path | None:
        """See `Operations`."""
        return self._files.secret_file(name)

    def ask(self, service: str, path: str, *, token: str | None = None) -> tuple[int, bytes] | None:
        """See `Operations`. If no port is published, a script in the container sends the request."""
        url = self.url(service)
        if url is not None:
            try:
                return http_get(f"{url}{path}", token=self.secret(token) if token else None)
            except NotFoundError:
                return None
        try:
            container = self._container(service)
        except NotFoundError:
            return None
        if container.status != "running":
            return None
        files = [f"{SECRETS}/{token}"] if token else []
        with talking(service):
            done: Any = container.exec_run(["python", "-c", _GET_SCRIPT, f"http://127.0.0.1:{PORT}{path}", *files])
        if done.exit_code != 0:
            return None
        status, body = json.loads(done.output)
        return int(status), str(body).encode()

    def _client(self) -> DockerClient:
        return connect(self._host)

    def _containers(self) -> list[Container]:
        client = self._client()
        with talking("containers"):
            found = client.containers.list(all=True, filters={"label": [f"{STACK}={self._stack}", SERVICE]})
        return sorted(found, key=_name)

    def _container(self, service: str) -> Container:
        for container in self._containers():
            if _name(container) == service:
                return container
        raise NotFoundError("has no container", field="service", value=service, hint="run `tidemill up`")


def _name(container: Container) -> str:
    return str(container.labels[SERVICE])


def _stop(container: Container) -> None:
    container.stop(timeout=_stop_seconds(container))


def _stop_seconds(container: Container) -> int:
    return int(container.attrs["Config"].get("StopTimeout") or _STOP_SECONDS)


def _state(client: DockerClient, container: Container) -> ServiceState:
    state: dict[str, Any] = container.attrs["State"]
    health: dict[str, Any] = state.get("Health") or {}
    name = _name(container)
    if state.get("Restarting"):
        return ServiceState(name, "failing", problem=f"ended with exit code {state.get('ExitCode')}")
    if not state.get("Running"):
        return ServiceState(name, "stopped", problem="does not run")
    status = health.get("Status", "healthy")
    problem = {"healthy": "", "starting": "is starting"}.get(status)
    if problem is None:
        log: list[dict[str, Any]] = health.get("Log") or [{}]
        problem = f"does not answer ({str(log[-1].get('Output', '')).strip()[-200:]})"
    used: dict[str, Any] = client.api.stats(str(container.id), stream=False, one_shot=True).get("memory_stats") or {}
    started = datetime.fromisoformat(str(state["StartedAt"])[:19]).replace(tzinfo=UTC)
    return ServiceState(
        name,
        "starting" if status == "starting" else "running",
        memory_mb=round(used["usage"] / 1e6, 1) if "usage" in used else None,
        uptime_seconds=max(0.0, (datetime.now(UTC) - started).total_seconds()),
        problem=problem,
    )
