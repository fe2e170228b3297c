"""Health of the stack's services and models, as the services report it. Needs neither the engine nor Pulumi."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from typing import Any, cast

from ..components.targets.operations import Operations, ServiceState
from ..runtime.common.errors import TidemillError
from .loading import LoadedStack

# Health endpoint of each tool, and the login it requires. Our own services all have an open /healthz.
_HEALTH: dict[str, tuple[str, tuple[str, str] | None]] = {
    "lakefs": ("/_health", None),
    "mlflow": ("/health", None),
    "prometheus": ("/-/healthy", ("admin", "prometheus-admin")),
    "alertmanager": ("/-/healthy", ("admin", "alertmanager-admin")),
    "grafana": ("/api/health", None),
}
LOGINS = {
    "lakefs": ("lakefs-key-id", "lakefs-secret"),
    "mlflow": ("admin", "mlflow-admin"),
    "prometheus": ("admin", "prometheus-admin"),
    "alertmanager": ("admin", "alertmanager-admin"),
    "grafana": ("admin", "grafana-admin"),
}
"""Browser login of each service: the user (for lakeFS, the secret that holds it) and the secret with the password."""


@dataclass(frozen=True)
class ServiceView:
    """A service as `status` shows it.

    Attributes:
        name: the service.
        state: running, starting, stopped, failing (it exits and is restarted), or unsupervised (it runs, but nothing
            would restart it).
        healthy: whether it is alive, ready and supervised.
        url: where it listens, or None.
        version: version of the program, or None if unknown.
        pid: its process on this machine, or None.
        memory_mb: memory of its processes.
        uptime_seconds: time since its last start.
        log: where its log is.
        problem: why it is unhealthy or degraded, or None.
        alive: whether its health check passes.
        degraded: whether it works, but something is wrong.
        awaits_first_version: whether it is not ready only because its model never had a champion.
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
    alive: bool = False
    degraded: bool = False
    awaits_first_version: bool = False


@dataclass(frozen=True)
class ModelView:
    """A model as its server reports it.

    Attributes:
        ready: whether the server answers predictions.
        alias: the alias of the version, if the registry still has it.
        degraded: whether it is ready, but something is wrong, such as a missing alias; `problem` says what.
        trust: what the files of its versions may hold, such as `pickle`.
        notes: problems of its capture and labels, as the monitor reports them.
    """

    name: str
    ready: bool
    url: str | None = None
    alias: str | None = None
    version: str | None = None
    lake_commit: str | None = None
    git_commit: str | None = None
    problem: str | None = None
    degraded: bool = False
    trust: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class UnvalidatedView:
    """A commit that brought data past the gate.

    Attributes:
        branch: REPOSITORY/BRANCH.
        commit, message: the commit.
        files: the first changed paths.
        number_of_files: the number of all changed paths.
    """

    branch: str
    commit: str
    message: str
    files: Sequence[str]
    number_of_files: int

    def __str__(self) -> str:
        more = self.number_of_files - len(self.files)
        files = ", ".join(self.files) + (f" and {more} more" if more else "")
        return (
            f"{self.branch}: commit {self.commit[:12]} ({self.message}) did not pass the gate and changed {files}. "
            f"Trainings ignore it; to remove it, run `tidemill data restore {self.branch}`"
        )


@dataclass(frozen=True)
class Overview:
    """A stack at one moment."""

    stack: str
    target: str
    running: bool
    services: Sequence[ServiceView]
    models: Sequence[ModelView]
    unvalidated: Sequence[UnvalidatedView] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class RetrainingView:
    """A retraining, with the fields that `up` shows."""

    id: str
    model: str
    reason: str
    state: str
    detail: str
    log: str | None


def overview(loaded: LoadedStack, operations: Operations) -> Overview:
    """Check the health of every service and model of `loaded`."""
    found = operations.services()

    def check(service: ServiceState) -> ServiceView:
        problem = service.problem
        url = operations.url(service.name)
        if problem is None and url is not None:
            problem = _health_problem(operations, service.name, url)
        alive = not problem
        readiness = _readiness(operations, service.name) if alive else _Readiness()
        problem = problem or readiness.problem
        healthy = alive and readiness.ready
        if alive and service.state == "unsupervised":
            healthy, problem = False, "running, not supervised; `tidemill start` restarts and supervises it"
        return ServiceView(
            name=service.name,
            state=service.state,
            healthy=healthy,
            url=url,
            version=operations.version(service.name),
            pid=service.pid,
            memory_mb=service.memory_mb,
            uptime_seconds=service.uptime_seconds,
            log=operations.log_place(service.name),
            problem=problem or None,
            alive=alive,
            degraded=healthy and bool(problem),
            awaits_first_version=readiness.awaits_first_version,
        )

    with ThreadPoolExecutor(max_workers=16) as pool:
        services = list(pool.map(check, found))
        models = list(pool.map(model_view, repeat(operations), sorted(loaded.config.models)))
    reports = monitored(operations)
    notes = model_notes(reports)
    models = [replace(model, notes=notes.get(model.name, ())) for model in models]
    running = any(service.state != "stopped" for service in found)
    stack, target = loaded.config.stack, loaded.config.target
    return Overview(stack, target, running, services, models, unvalidated_commits(reports))


def _health_problem(operations: Operations, name: str, url: str) -> str | None:
    import httpx

    path, login = _HEALTH.get(name, ("/healthz", None))
    try:
        auth = (login[0], operations.secret(login[1])) if login else None
        with httpx.Client(timeout=5.0, trust_env=False) as client:  # no proxy for this machine
            answer = client.get(f"{url}{path}", auth=auth)
    except httpx.HTTPError as error:
        return f"does not answer ({type(error).__name__})"
    except TidemillError as error:
        return f"cannot read its secret ({error})"
    return None if answer.status_code == 200 else f"answers {answer.status_code} on {path}"


@dataclass(frozen=True)
class _Readiness:
    """The answer of a service at `/readyz`."""

    ready: bool = True
    problem: str | None = None
    awaits_first_version: bool = False


def _readiness(operations: Operations, name: str) -> _Readiness:
    """Return whether a service of tidemill is ready; other services, and unreachable ones, count as ready."""
    try:
        answer = None if name in _HEALTH else operations.ask(name, "/readyz")
    except TidemillError:
        answer = None  # it has just stopped
    if answer is None or answer[0] not in (200, 503):
        return _Readiness()
    ready, body = answer[0] == 200, _json_object(answer[1]) or {}
    reason = body.get("error") or (None if ready else body.get("status"))
    if ready:
        return _Readiness(problem=str(reason) if reason else None)
    return _Readiness(False, f"not ready: {reason or 'no reason given'}", bool(body.get("awaits_first_version")))


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        found: Any = json.loads(body)
    except ValueError:
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def model_view(operations: Operations, model: str) -> ModelView:
    """Return what the server of `model` serves."""
    service = f"serving-{model}"
    url = operations.url(service)
    if url is None:
        return ModelView(model, ready=False, problem="it has no server yet")
    answer = operations.ask(service, "/readyz")
    body = _json_object(answer[1]) if answer else None
    if answer is None or body is None:
        return ModelView(model, ready=False, url=url, problem="its server does not answer")
    status = answer[0]

    def text(key: str) -> str | None:
        value = body.get(key)
        return None if value is None else str(value)

    return ModelView(
        name=model,
        ready=status == 200,
        url=url,
        alias=None if body.get("alias_missing") else text("alias"),
        version=text("version"),
        lake_commit=text("lake_commit"),
        git_commit=text("git_commit"),
        problem=text("error") or (None if status == 200 else f"answers {status}"),
        degraded=status == 200 and text("error") is not None,
        trust=[str(kind) for kind in body.get("trust") or ()],
    )


def monitored(operations: Operations) -> list[dict[str, Any]]:
    """Return what the monitor reports of each model; [] if it does not answer."""
    answer = operations.ask("monitor", "/status", token="monitor-token")  # noqa: S106 - the secret's name
    body = (_json_object(answer[1]) if answer and answer[0] == 200 else None) or {}
    return cast("list[dict[str, Any]]", body.get("models", []))


def model_notes(reports: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the problems of the capture and labels of each model, from what the monitor reports."""
    # A monitor of an earlier release has no notes.
    return {str(report["name"]): [str(note) for note in report.get("notes", [])] for report in reports}


def unvalidated_commits(reports: Sequence[Mapping[str, Any]]) -> list[UnvalidatedView]:
    """Return the commits that brought data past the gate, from what the monitor reports."""
    found: dict[str, UnvalidatedView] = {}
    for model in reports:
        branch = "/".join(str(model.get("data", "")).split("/")[:2])
        for item in cast("list[dict[str, Any]]", model.get("unvalidated", [])):
            files = [str(name) for name in item["files"]]
            view = UnvalidatedView(branch, item["commit"], item["message"], files, int(item["number_of_files"]))
            found[view.commit] = view
    return list(found.values())


def retrainings(operations: Operations) -> list[RetrainingView]:
    """Return the retrainings, newest first; [] if the retraining service does not answer."""
    answer = operations.ask("retraining", "/status", token="retraining-token")  # noqa: S106 - the secret's name
    body = (_json_object(answer[1]) if answer and answer[0] == 200 else None) or {}
    # A service of an earlier release that was not restarted yet answers with `turns`.
    return [
        RetrainingView(
            id=str(entry.get("id", "")),
            model=str(entry.get("model", "")),
            reason=str(entry.get("reason", "")),
            state=str(entry.get("state", "")),
            detail=str(entry.get("detail") or ""),
            log=entry.get("log"),
        )
        for entry in cast("list[dict[str, Any]]", body.get("retrainings", body.get("turns", [])))
    ]
