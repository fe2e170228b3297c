"""What runs and how it is, asked of the services themselves: no engine, no Pulumi."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tidemill.components.layout import StackRoot
from tidemill.runtime.errors import TidemillError

from .loading import LoadedStack

if TYPE_CHECKING:
    import httpx

__all__ = ["ModelView", "Overview", "ServiceView", "Turn", "overview", "ready", "service_url", "turns"]

# Where each tool says that it lives, and as whom to ask; our own services all have an open /healthz.
_HEALTH: dict[str, tuple[str, tuple[str, str] | None]] = {
    "lakefs": ("/_health", None),
    "mlflow": ("/health", None),
    "prometheus": ("/-/healthy", ("admin", "prometheus-admin")),
    "alertmanager": ("/-/healthy", ("admin", "alertmanager-admin")),
    "grafana": ("/api/health", None),
}
_DISTRIBUTIONS = {"mlflow": "mlflow"}
_TOOLS = ("lakefs", "prometheus", "alertmanager", "grafana")
LOGINS = {
    "lakefs": ("lakefs-key-id", "lakefs-secret"),
    "mlflow": ("admin", "mlflow-admin"),
    "prometheus": ("admin", "prometheus-admin"),
    "alertmanager": ("admin", "alertmanager-admin"),
    "grafana": ("admin", "grafana-admin"),
}
"""Who may look at a service in the browser: user (for lakeFS the file with it) and the file with the password."""


@dataclass(frozen=True)
class ServiceView:
    """A service as `status` shows it.

    Attributes:
        name: the service.
        state: running, starting, stopped, or failing (it ends and is started again).
        healthy: whether it answers that it is well.
        url: where it listens, or None.
        version: of the program, or None where it is not known.
        pid: its process, or None.
        memory_mb: memory of its processes.
        uptime_seconds: since its last start.
        log: its log.
        problem: why it is not healthy, or None.
    """

    name: str
    state: str
    healthy: bool
    url: str | None
    version: str | None
    pid: int | None
    memory_mb: float | None
    uptime_seconds: float | None
    log: str
    problem: str | None = None


@dataclass(frozen=True)
class ModelView:
    """A model as its server knows it."""

    name: str
    ready: bool
    url: str | None = None
    alias: str | None = None
    version: str | None = None
    lake_commit: str | None = None
    git_commit: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Overview:
    """A stack at one moment."""

    stack: str
    target: str
    running: bool
    services: Sequence[ServiceView]
    models: Sequence[ModelView]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Turn:
    """A turn of the wheel, as far as `up` follows it."""

    id: str
    model: str
    reason: str
    state: str
    detail: str
    log: str | None


def _ports(root: StackRoot) -> dict[str, int]:
    try:
        found = json.loads(root.endpoints.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {str(name): int(port) for name, port in found.items()} if isinstance(found, dict) else {}


def service_url(root: StackRoot, name: str) -> str | None:
    """Return the base URL of the service `name`, or None when it has none."""
    port = _ports(root).get(name)
    return None if port is None else f"http://127.0.0.1:{port}"


def overview(loaded: LoadedStack, root: StackRoot) -> Overview:
    """Ask every service of `loaded` how it is."""
    from tidemill.components.provider.supervise import ProcessInfo, Supervisor

    supervisor = Supervisor(root)
    processes = supervisor.processes()
    known = {process.name for process in processes}
    folder = root.path / "services"
    made = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    processes += [ProcessInfo(name, "STOPPED") for name in made if name not in known]

    def look(process: ProcessInfo) -> ServiceView:
        url = service_url(root, process.name)
        problem = _problem(root, process.name, url) if process.pid else "does not run"
        return ServiceView(
            name=process.name,
            state=_state(process.state),
            healthy=problem is None,
            url=url,
            version=_version(process.name),
            pid=process.pid,
            memory_mb=None if process.rss is None else round(process.rss / 1e6, 1),
            uptime_seconds=process.uptime,
            log=str(root.log(process.name)),
            problem=problem,
        )

    with ThreadPoolExecutor(max_workers=16) as pool:
        services = list(pool.map(look, sorted(processes, key=lambda process: process.name)))
        models = list(pool.map(ready, repeat(root), sorted(loaded.config.models)))
    running = any(service.pid for service in services)
    return Overview(loaded.config.stack, loaded.config.target, running, services, models)


def _state(word: str) -> str:
    return {
        "RUNNING": "running",
        "STARTING": "starting",
        "BACKOFF": "failing",
        "FATAL": "failing",
        "EXITED": "failing",
    }.get(word, "stopped")


def _client(timeout: float = 5.0) -> httpx.Client:
    import httpx

    return httpx.Client(timeout=timeout, trust_env=False)  # no proxy stands between this machine and itself


def _problem(root: StackRoot, name: str, url: str | None) -> str | None:
    import httpx

    if url is None:
        return None
    path, login = _HEALTH.get(name, ("/healthz", None))
    try:
        auth = (login[0], (root.secrets / login[1]).read_text(encoding="utf-8").strip()) if login else None
        with _client() as client:
            answer = client.get(f"{url}{path}", auth=auth)
    except httpx.HTTPError as error:
        return f"does not answer ({type(error).__name__})"
    except OSError as error:
        return f"its secret cannot be read ({error.strerror})"
    return None if answer.status_code == 200 else f"answers {answer.status_code} on {path}"


def _version(name: str) -> str | None:
    if name in _TOOLS:
        from tidemill.components import tools

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
    try:
        return metadata.version(_DISTRIBUTIONS.get(name, "tidemill"))
    except metadata.PackageNotFoundError:
        return None


def ready(root: StackRoot, model: str) -> ModelView:
    """Ask the server of `model` what it serves."""
    import httpx

    url = service_url(root, f"serving-{model}")
    if url is None:
        return ModelView(model, ready=False, problem="it has no server yet")
    try:
        with _client() as client:
            answer = client.get(f"{url}/readyz")
            told = cast("dict[str, Any]", answer.json())
    except (httpx.HTTPError, ValueError) as error:
        return ModelView(model, ready=False, url=url, problem=f"its server does not answer ({type(error).__name__})")

    def text(key: str) -> str | None:
        value = told.get(key)
        return None if value is None else str(value)

    return ModelView(
        name=model,
        ready=answer.status_code == 200,
        url=url,
        alias=text("alias"),
        version=text("version"),
        lake_commit=text("lake_commit"),
        git_commit=text("git_commit"),
        problem=None if answer.status_code == 200 else text("error") or f"answers {answer.status_code}",
    )


def turns(root: StackRoot) -> list[Turn]:
    """Return the turns of the wheel the retraining service knows, newest first; [] when it does not answer."""
    import httpx

    url = service_url(root, "retraining")
    if url is None:
        return []
    try:
        token = _secret(root.secrets / "retraining-token")
        with _client() as client:
            answer = client.get(f"{url}/status", headers={"Authorization": f"Bearer {token}"})
            found: Any = answer.raise_for_status().json()
    except (httpx.HTTPError, OSError, ValueError):
        return []
    listed = cast("list[dict[str, Any]]", found["turns"] if isinstance(found, dict) else found)
    return [
        Turn(
            id=str(entry.get("id", "")),
            model=str(entry.get("model", "")),
            reason=str(entry.get("reason", "")),
            state=str(entry.get("state", "")),
            detail=str(entry.get("detail") or ""),
            log=entry.get("log"),
        )
        for entry in listed
    ]


def _secret(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip()
