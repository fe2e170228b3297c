"""Lists the stacks of a project with their state; reads only files and the engine's state, and calls no provider."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from ...runtime.common.errors import TidemillError
from ..engine.environment import state_folder
from ..engine.locks import EngineLock
from ..engine.state import read_checkpoint
from ..loading import check_stack, project_settings, stack_names
from ..settings import StackConfig
from ..stack_config.sources import FileCache

_ENGINE_SECONDS = 60


@dataclass(frozen=True)
class StackView:
    """A stack as `tidemill stacks` shows it.

    Attributes:
        name: TEAM-ENVIRONMENT.
        team, environment, target: from its config; None if that is invalid.
        models: names of its models.
        state: `not up`; `up`; `stopped` (on local: created, but no service runs); `changing` (an engine is working
            on it); `interrupted` (its engine died); `unknown`.
        resources: number of resources in the state, or None if unknown.
        detail: more about the state, such as why it is unknown; may be empty.
        problems: number of problems in its config.
    """

    name: str
    team: str | None
    environment: str | None
    target: str | None
    models: Sequence[str]
    state: str
    resources: int | None
    detail: str
    problems: int

    def as_json(self) -> dict[str, Any]:
        """Return this as JSON."""
        return asdict(self)


def list_stacks(project: Path, environ: Mapping[str, str] = os.environ) -> list[StackView]:
    """Return the stacks of `project` that have a config, sorted by name.

    Raises:
        ConfigError: Pulumi.yaml cannot be read.
    """
    files = FileCache(project)
    name = str(project_settings(project)["name"])
    folder = state_folder(project, environ)
    names = stack_names(project)
    remote = _engine_listing(project, environ) if folder is None and names else {}
    views: list[StackView] = []
    for stack in names:
        found = check_stack(files, stack)
        config = found.config
        target = config.target if config else None
        if folder is not None:
            state, resources, detail = _state(folder, name, stack)
        else:
            state, resources, detail = remote.get(stack) or remote.get("", ("not up", 0, ""))
        if state == "up" and config and config.spec.light_operations and not _runs(config, project):
            state = "stopped"
        views.append(
            StackView(
                name=stack,
                team=config.team if config else None,
                environment=config.environment if config else None,
                target=target,
                models=sorted(config.models) if config else [],
                state=state,
                resources=resources,
                detail=detail,
                problems=len(found.findings),
            )
        )
    return views


_State = tuple[str, int | None, str]


def _state(folder: Path, project: str, stack: str) -> _State:
    try:
        deployment = read_checkpoint(folder, project, stack)
    except TidemillError as error:
        return "unknown", None, str(error)
    count = len(deployment.resources) if deployment else 0
    lock = _lock(folder, project, stack)
    if lock is not None:
        alive = not lock.here or lock.process() is not None
        detail = f"by {lock.user}@{lock.host}, process {lock.pid}, since {lock.at}"
        return "changing" if alive else "interrupted", count, detail
    if deployment and deployment.pending:
        return "interrupted", count, f"while it made {', '.join(deployment.pending)}"
    return "up" if count else "not up", count, ""


def _lock(folder: Path, project: str, stack: str) -> EngineLock | None:
    for file in sorted((folder / "locks" / "organization" / project / stack).glob("*.json")):
        try:
            lock: Any = json.loads(file.read_text(encoding="utf-8"))
            return EngineLock(
                file.as_uri(),
                str(lock["username"]),
                str(lock["hostname"]),
                int(lock["pid"]),
                str(lock["timestamp"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue  # the engine has just ended, or was killed while it wrote the file
    return None


def _runs(config: StackConfig, project: Path) -> bool:
    """Return whether any service of the stack runs."""
    return any(service.pid for service in config.spec.operations(config.on_target(project)).services())


def _engine_listing(project: Path, environ: Mapping[str, str]) -> dict[str, _State]:
    """List the stacks of a remote backend with the engine; after a failure, the key "" has the reason."""
    from ...components import tools

    try:
        argv = [str(tools.find("pulumi")), "stack", "ls", "--json", "--non-interactive"]
        done = subprocess.run(
            argv,
            cwd=project,
            env={**environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
            capture_output=True,
            text=True,
            check=False,
            timeout=_ENGINE_SECONDS,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no reason given"]
            return {"": ("unknown", None, lines[-1])}
        entries = cast("list[dict[str, Any]]", json.loads(done.stdout))
    except (TidemillError, OSError, ValueError, subprocess.TimeoutExpired) as error:
        return {"": ("unknown", None, f"cannot list the stacks of the backend ({error})")}
    found: dict[str, _State] = {}
    for entry in entries:
        count = entry.get("resourceCount")
        state = "changing" if entry.get("updateInProgress") else "up" if count else "not up"
        found[str(entry["name"]).rsplit("/", 1)[-1]] = (state, count if isinstance(count, int) else None, "")
    return found
