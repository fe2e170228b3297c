"""Service on this machine: a process under the stack's supervisord, healthy when its creation ends."""

from __future__ import annotations

import base64
import http.client
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, NotRequired

from ....runtime.common.errors import PlatformError, ServiceError, TidemillError
from ...layout import StackRoot
from ..base import Context, Diff, Properties
from .data import Local
from .files import claim, log_tail, root_of, secret_value
from .ports import HOST, kept_port, require_free
from .process import Process, ProcessInputs, digest_of, is_known, write_spec
from .supervisor import Program, Supervisor

if TYPE_CHECKING:
    import pulumi

    from ..base import Text

_TIMEOUT = 60.0
_EVERY = 0.05
_LOOK_EVERY = 0.25
# Starts before a service counts as broken; the first may fail because another service starts slowly.
_STARTS: Final = 3
_UP: Final = frozenset({"RUNNING", "STARTING"})


class ServiceInputs(ProcessInputs):
    """Inputs of a service; `health` has `path`, `timeout` in seconds, and `basicUser` with `basicSecret`."""

    endpoints: NotRequired[Sequence[Text] | None]
    health: NotRequired[Mapping[str, Any] | None]
    open_files: NotRequired[pulumi.Input[int] | None]
    stop_seconds: NotRequired[pulumi.Input[float] | None]


class Service(Process, inputs=ServiceInputs):
    """A process that runs until it is stopped, and is restarted when it ends."""

    token: ClassVar[str] = "tidemill-native:local:Service"
    outputs: ClassVar[tuple[str, ...]] = ("running",)

    def diff(self, context: Context, state: Properties, inputs: Properties) -> Diff:
        """Compare; a stopped service differs, and so does one with other secrets, ports, tools or another launcher."""
        found = Local.diff(self, context, state, inputs)
        changes = found.changes
        if not state.get("running"):
            changes += ("running",)
        if not changes and is_known(inputs):
            root, name = root_of(inputs), str(inputs["name"])
            try:
                same = Supervisor(root).has(name, digest_of(inputs, root.service(name), get_tools=None))
            except TidemillError:
                same = False
            changes = () if same else ("configFiles",)
        return Diff(changes, found.replaces)

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Start the service, or take over one that already runs as wanted, and wait until it is healthy."""
        root = claim(context, inputs)
        name = str(inputs["name"])
        try:
            _converge(context, root, inputs)
        except BaseException:
            # Also after an interrupt: nobody would ever stop a service that is not in the state.
            _remove(root, name)
            raise
        return name, {**inputs, "running": True}

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Return the state with whether the service runs."""
        program = Supervisor(root_of(state)).program(str(state["name"]))
        return {**state, "running": program is not None and program.state in _UP}

    def update(self, context: Context, state: Properties, inputs: Properties) -> Properties:
        """Restart the service unless it already runs as wanted."""
        _converge(context, claim(context, inputs), inputs)
        return {**inputs, "running": True}

    def delete(self, context: Context, state: Properties) -> None:
        """Stop the service and delete its files; keep its log."""
        _remove(root_of(state), str(state["name"]))


def _remove(root: StackRoot, name: str) -> None:
    Supervisor(root).remove(name)
    shutil.rmtree(root.service(name), ignore_errors=True)


def _converge(context: Context, root: StackRoot, inputs: Properties) -> None:
    name = str(inputs["name"])
    folder = root.service(name)
    supervisor = Supervisor(root)
    supervisor.start()
    digest = digest_of(inputs, folder, get_tools=context.say)
    program = supervisor.program(name)
    if program is None or program.state not in _UP or not supervisor.has(name, digest):
        supervisor.end(name)
        for endpoint in inputs.get("endpoints") or ():
            require_free(endpoint, kept_port(root, endpoint))
        write_spec(inputs, folder, digest, record=root.record(name), get_tools=context.say)
        supervisor.apply(name)
    _await_health(context, root, inputs, supervisor)


def _await_health(context: Context, root: StackRoot, inputs: Properties, supervisor: Supervisor) -> None:
    """Wait until the health check of the service answers 200.

    Raises:
        ServiceError: it did not within its time, or the service kept ending.
        PlatformError: the user interrupted.
    """
    name = str(inputs["name"])
    health: dict[str, Any] = inputs.get("health") or {}
    timeout = float(context.timeout or health.get("timeout") or _TIMEOUT)
    until = time.monotonic() + timeout
    # A service without an endpoint has no health check: it must only stay up.
    enough = _UP if inputs.get("endpoints") else {"RUNNING"}
    look_at = 0.0
    program: Program | None = None
    starts: set[int] = set()
    while True:
        problem = _health_problem(root, inputs, health)
        # Supervisord has one thread, and many services start together: ask it less often.
        if not problem or time.monotonic() >= look_at:
            look_at = time.monotonic() + _LOOK_EVERY
            program = supervisor.program(name)
            if not problem and program and program.state in enough:
                return
            if program and program.started:
                starts.add(program.started)
        if context.cancelled.is_set():
            raise PlatformError("interrupted while it started", field=name)
        if len(starts) > _STARTS or (len(starts) == _STARTS and program and program.state == "BACKOFF"):
            raise ServiceError("keeps ending right after its start", field=name, log_tail=log_tail(root, name))
        if time.monotonic() > until:
            raise ServiceError(
                f"was not healthy after {timeout:.0f} s{f' ({problem})' if problem else ''}",
                field=name,
                log_tail=log_tail(root, name),
            )
        time.sleep(_EVERY)


def _health_problem(root: StackRoot, inputs: Properties, health: dict[str, Any]) -> str:
    """Return what the health check of the service reports; empty when the service is healthy."""
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
