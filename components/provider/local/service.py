"""Service on this machine: a process under the stack's supervisord, alive when it was made."""

from __future__ import annotations

import base64
import http.client
import shutil
import time
from pathlib import Path
from typing import Any, ClassVar, Final

from ....runtime.common.errors import PlatformError, ServiceError, TidemillError
from ...layout import StackRoot
from ..base import Context, Diff, Properties
from .data import Local
from .files import claim, log_tail, read_json, root_of, secret_value
from .ports import HOST, kept_port, require_free
from .process import Process, digest_of, known, stop_seconds, write_spec
from .supervisor import Program, Supervisor

__all__ = ["Service"]

_TIMEOUT = 60.0
_EVERY = 0.05
_LOOK_EVERY = 0.25
# So often in a row it may end before it counts as broken; the first time may be a neighbour which is slow to start.
_STARTS: Final = 3
_UP: Final = frozenset({"RUNNING", "STARTING"})


class Service(Process):
    """A process which runs until stopped, and again when it ends."""

    token: ClassVar[str] = "tidemill-native:local:Service"
    optional: ClassVar[tuple[str, ...]] = (
        *("env", "secretEnv", "secrets", "configFiles", "endpoints", "health", "openFiles", "stopSeconds", "cwd"),
    )
    outputs: ClassVar[tuple[str, ...]] = ("running",)

    def diff(self, context: Context, state: Properties, inputs: Properties) -> Diff:
        """A service differs too when it does not run, or was started with other secrets, ports or tools."""
        found = Local.diff(self, context, state, inputs)
        changes = found.changes
        if not state.get("running"):
            changes += ("running",)
        if not changes and known(inputs):
            folder = root_of(inputs).service(str(inputs["name"]))
            try:
                same = _started_with(folder) == digest_of(inputs, folder, get_tools=None)
            except TidemillError:
                same = False
            changes = () if same else ("configFiles",)
        return Diff(changes, found.replaces)

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Start it, or take over the one which runs as wanted, and wait until it is alive."""
        root = claim(context, inputs)
        name = str(inputs["name"])
        try:
            _converge(context, root, inputs)
        except BaseException:
            # Also when interrupted: a service which is in no state would run for ever.
            _remove(root, name)
            raise
        return name, {**inputs, "running": True}

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Tell whether it runs."""
        del context
        program = Supervisor(root_of(state)).program(str(state["name"]))
        return {**state, "running": program is not None and program.state in _UP}

    def update(self, context: Context, state: Properties, inputs: Properties) -> Properties:
        """Start it again where it runs with other settings than wanted, or not at all."""
        del state
        _converge(context, claim(context, inputs), inputs)
        return {**inputs, "running": True}

    def delete(self, context: Context, state: Properties) -> None:
        """Stop it and delete its files; its log stays."""
        del context
        _remove(root_of(state), str(state["name"]))


def _remove(root: StackRoot, name: str) -> None:
    Supervisor(root).remove(name)
    shutil.rmtree(root.service(name), ignore_errors=True)


def _started_with(folder: Path) -> str | None:
    return (read_json(folder / "spec.json") or {}).get("digest")


def _converge(context: Context, root: StackRoot, inputs: Properties) -> None:
    name = str(inputs["name"])
    folder = root.service(name)
    supervisor = Supervisor(root)
    supervisor.start()
    digest = digest_of(inputs, folder, get_tools=context.say)
    program = supervisor.program(name)
    if program is None or program.state not in _UP or _started_with(folder) != digest:
        supervisor.end(name)
        for endpoint in inputs.get("endpoints") or ():
            require_free(endpoint, kept_port(root, endpoint))
        spec = write_spec(inputs, folder, digest, record=root.record(name), get_tools=context.say)
        supervisor.apply(name, spec, stop_seconds(inputs))
    _await(context, root, inputs, supervisor)


def _await(context: Context, root: StackRoot, inputs: Properties, supervisor: Supervisor) -> None:
    """Wait until the service answers 200 where its health is asked.

    Raises:
        ServiceError: it did not within its time, or ended again and again.
        PlatformError: the user interrupted.
    """
    name = str(inputs["name"])
    health: dict[str, Any] = inputs.get("health") or {}
    timeout = float(context.timeout or health.get("timeout") or _TIMEOUT)
    until = time.monotonic() + timeout
    # Without an endpoint nothing can be asked but whether it stays up.
    enough = _UP if inputs.get("endpoints") else {"RUNNING"}
    look_at = 0.0
    program: Program | None = None
    starts: set[int] = set()
    while True:
        said = _ask(root, inputs, health)
        # Supervisord is asked more rarely: many services start at once, and it has one thread.
        if not said or time.monotonic() >= look_at:
            look_at = time.monotonic() + _LOOK_EVERY
            program = supervisor.program(name)
            if not said and program and program.state in enough:
                return
            if program and program.started:
                starts.add(program.started)
        if context.cancelled.is_set():
            raise PlatformError("interrupted while it started", field=name)
        if len(starts) > _STARTS or (len(starts) == _STARTS and program and program.state == "BACKOFF"):
            raise ServiceError("ends again and again", field=name, log_tail=log_tail(root, name))
        if time.monotonic() > until:
            raise ServiceError(
                f"was not alive after {timeout:.0f} s{f' ({said})' if said else ''}",
                field=name,
                log_tail=log_tail(root, name),
            )
        time.sleep(_EVERY)


def _ask(root: StackRoot, inputs: Properties, health: dict[str, Any]) -> str:
    """Ask the service how it is; return an empty text when it is well, else what is wrong."""
    endpoints: list[str] = inputs.get("endpoints") or []
    if not endpoints:
        return ""
    headers: dict[str, str] = {}
    if health.get("basicUser"):
        pair = f"{health['basicUser']}:{secret_value(root, str(health['basicSecret']))}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    connection = http.client.HTTPConnection(HOST, kept_port(root, endpoints[0]), timeout=5.0)
    path = str(health.get("path") or "/healthz")
    try:
        connection.request("GET", path, headers=headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{path}: {error}"
    finally:
        connection.close()
    return "" if status == http.client.OK else f"{path} answers {status}"
