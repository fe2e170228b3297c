"""Job in a container: it runs once, to its end, and survives a killed engine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NotRequired, TypedDict

from ....runtime.common.files import write_private
from ...layout import StackRoot
from ..base import Context, Properties
from ..job import interrupted, time_limit
from ..local.data import LocalInputs
from ..local.launch import private
from ..local.recorded_job import RecordedJob, failed_job, result_file
from .daemon import STACK, connect, require_own, talking

if TYPE_CHECKING:
    import pulumi

    from ..base import Text

_EVERY = 0.5
_DIGEST = "tidemill.job"


class MountInputs(TypedDict):
    """A volume in a container."""

    volume: Text
    target: str
    readOnly: bool


class JobInputs(LocalInputs):
    """Inputs of a job; it runs again when `triggers` change. `timeout` is in seconds, `processes` a maximum."""

    image: Text
    argv: Sequence[Text]
    host: NotRequired[Text | None]
    entrypoint: NotRequired[Sequence[Text] | None]
    env: NotRequired[Mapping[str, Text] | None]
    mounts: NotRequired[Sequence[MountInputs] | None]
    networks: NotRequired[Sequence[Text] | None]
    user: NotRequired[Text | None]
    working_dir: NotRequired[Text | None]
    tmpfs: NotRequired[Mapping[str, Text] | None]
    memory_mb: NotRequired[pulumi.Input[int] | None]
    cpus: NotRequired[pulumi.Input[float] | None]
    processes: NotRequired[pulumi.Input[int] | None]
    labels: NotRequired[Mapping[str, Text] | None]
    timeout: NotRequired[pulumi.Input[float] | None]
    triggers: NotRequired[Mapping[str, Text] | None]


class Job(RecordedJob, inputs=JobInputs):
    """A container that runs once; only changed triggers make it run again.

    Its output goes to the stack's logs on this machine, and the container is removed.
    """

    token: ClassVar[str] = "tidemill-native:docker:Job"

    def run(self, context: Context, root: StackRoot, inputs: Properties, digest: str) -> None:
        """Run the container to its end."""
        name = str(inputs["name"])
        client = connect(inputs.get("host"))
        container = _container(inputs)
        with talking(name):
            found = _find(client, container)
            if found is not None:
                require_own("container", container, found["Config"].get("Labels"), str(inputs["stack"]))
                state = found["State"]
                usable = state["Running"] or (state["Status"] == "exited" and state["ExitCode"] == 0)
                if not usable or found["Config"]["Labels"].get(_DIGEST) != digest:
                    client.api.remove_container(container, force=True)
                    found = None
            if found is None:
                _start(client, container, inputs, digest)
            _wait(context, client, container, root, inputs)
        write_private(result_file(root.job(name)), json.dumps({"digest": digest, "exit_code": 0}))

    def delete(self, context: Context, state: Properties) -> None:
        """Delete the record of the run and a container that was left; keep the log."""
        super().delete(context, state)
        container = _container(state)
        client = connect(state.get("host"))
        with talking(container):
            found = _find(client, container)
            if found is not None:
                require_own("container", container, found["Config"].get("Labels"), str(state["stack"]))
                client.api.remove_container(container, force=True)


def _container(properties: Properties) -> str:
    return f"tidemill-{properties['stack']}-job-{properties['name']}"


def _find(client: Any, container: str) -> dict[str, Any] | None:
    import docker.errors

    try:
        return client.api.inspect_container(container)
    except docker.errors.NotFound:
        return None


def _start(client: Any, container: str, inputs: Properties, digest: str) -> None:
    api = client.api
    networks = [str(network) for network in inputs.get("networks") or ()]
    memory = inputs.get("memoryMb")
    cpus = inputs.get("cpus")
    processes = inputs.get("processes")
    host = api.create_host_config(
        binds={
            mount["volume"]: {"bind": mount["target"], "mode": "ro" if mount.get("readOnly") else "rw,nocopy"}
            for mount in inputs.get("mounts") or ()
        },
        network_mode=networks[0] if networks else "none",
        read_only=True,
        tmpfs=dict(inputs.get("tmpfs") or {}),
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        init=True,
        mem_limit=int(memory) * 1_000_000 if memory else None,
        memswap_limit=int(memory) * 1_000_000 if memory else None,
        nano_cpus=int(float(cpus) * 1e9) if cpus else None,
        pids_limit=int(processes) if processes else None,
    )
    api.create_container(
        image=str(inputs["image"]),
        name=container,
        command=list(inputs["argv"]),
        entrypoint=list(inputs["entrypoint"]) if inputs.get("entrypoint") else None,
        environment=dict(inputs.get("env") or {}),
        user=inputs.get("user"),
        working_dir=inputs.get("workingDir"),
        labels={**(inputs.get("labels") or {}), STACK: str(inputs["stack"]), _DIGEST: digest},
        host_config=host,
    )
    try:
        for network in networks[1:]:
            api.connect_container_to_network(container, network)
        api.start(container)
    except BaseException:
        api.remove_container(container, force=True)
        raise


def _wait(context: Context, client: Any, container: str, root: StackRoot, inputs: Properties) -> None:
    """Wait until the container has ended, and keep its output."""
    name = str(inputs["name"])
    limit = time_limit(inputs)
    until = time.monotonic() + limit
    late = False
    while client.api.inspect_container(container)["State"]["Running"]:
        late = time.monotonic() > until
        if context.cancelled.is_set() or late:
            client.api.kill(container)
            client.api.wait(container)
            if context.cancelled.is_set():
                client.api.remove_container(container, force=True)
                raise interrupted(name)
            break
        time.sleep(_EVERY)
    _keep_log(client, container, root, name)
    code = client.api.inspect_container(container)["State"]["ExitCode"]
    client.api.remove_container(container, force=True)
    if late or code != 0:
        raise failed_job(root, name, code, limit if late else None)


def _keep_log(client: Any, container: str, root: StackRoot, name: str) -> None:
    root.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(private(str(root.log(name)), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        for chunk in client.api.logs(container, stream=True, follow=False):
            file.write(chunk)
