"""Job in a container: it runs once, to its end, and outlives an engine which is killed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from typing import Any, ClassVar

from ....runtime.common.errors import PlatformError, ServiceError
from ....runtime.common.files import write_private
from ...layout import StackRoot
from ..base import Context, NativeResource, Properties
from ..local.files import claim, log_tail, read_json, root_of
from ..local.launch import private
from .daemon import STACK, connect, require_own, talking

__all__ = ["Job"]

_TIMEOUT = 1800.0
_EVERY = 0.5
_DIGEST = "tidemill.job"
_DONE = "done.json"


class Job(NativeResource):
    """A container which ran once; only changed triggers make it run again.

    Its output is kept in the stack's logs on this machine, with a note that it ended well; the container goes then.
    """

    token: ClassVar[str] = "tidemill-native:docker:Job"
    required: ClassVar[tuple[str, ...]] = ("stack", "root", "name", "image", "argv")
    optional: ClassVar[tuple[str, ...]] = (
        *("host", "entrypoint", "env", "mounts", "networks", "user", "workingDir", "tmpfs", "memoryMb", "cpus"),
        *("processes", "labels", "timeout", "triggers"),
    )
    outputs: ClassVar[tuple[str, ...]] = ("exitCode", "log")
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "root", "name", "triggers")

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Run it, or wait for the run which an interrupted creation left; one which ended well is not run again."""
        root = claim(context, inputs)
        name = str(inputs["name"])
        client = connect(inputs.get("host"))
        container = f"tidemill-{inputs['stack']}-job-{name}"
        digest = hashlib.sha256(json.dumps(inputs.get("triggers") or {}, sort_keys=True).encode()).hexdigest()
        result = {**inputs, "exitCode": 0, "log": str(root.log(name))}
        if (read_json(root.job(name) / _DONE) or {}).get("digest") == digest:
            return name, result
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
            _finish(context, client, container, root, inputs)
        write_private(root.job(name) / _DONE, json.dumps({"digest": digest, "exit_code": 0}))
        return name, result

    def read(self, context: Context, state: Properties) -> Properties | None:
        """A run is over; nothing of it can change."""
        del context
        return state

    def update(self, context: Context, state: Properties, inputs: Properties) -> Properties:
        """Take note of other settings."""
        del context
        return {**inputs, "exitCode": state.get("exitCode", 0), "log": state.get("log")}

    def delete(self, context: Context, state: Properties) -> None:
        """End what an interrupted run left, and forget the run; its log stays."""
        del context
        shutil.rmtree(root_of(state).job(str(state["name"])), ignore_errors=True)
        container = f"tidemill-{state['stack']}-job-{state['name']}"
        client = connect(state.get("host"))
        with talking(container):
            found = _find(client, container)
            if found is not None:
                require_own("container", container, found["Config"].get("Labels"), str(state["stack"]))
                client.api.remove_container(container, force=True)


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


def _finish(context: Context, client: Any, container: str, root: StackRoot, inputs: Properties) -> None:
    """Wait until the job has ended, and keep what it printed.

    Raises:
        ServiceError: it failed, or reached its time limit.
        PlatformError: the user interrupted; it is ended.
    """
    name = str(inputs["name"])
    limit = float(inputs.get("timeout") or _TIMEOUT)
    until = time.monotonic() + limit
    how = ""
    while True:
        found = client.api.inspect_container(container)
        if not found["State"]["Running"]:
            break
        if context.cancelled.is_set() or time.monotonic() > until:
            how = "" if context.cancelled.is_set() else f"reached its time limit of {limit:.0f} s and was ended"
            client.api.kill(container)
            client.api.wait(container)
            if not how:
                client.api.remove_container(container, force=True)
                raise PlatformError("interrupted while it ran", field=name)
            break
        time.sleep(_EVERY)
    _keep_log(client, container, root, name)
    code = client.api.inspect_container(container)["State"]["ExitCode"]
    client.api.remove_container(container, force=True)
    if how or code != 0:
        raise ServiceError(
            how or f"failed with exit code {code}",
            field=name,
            log_tail=log_tail(root_of(inputs), name),
            hint=f"read {root.log(name)}",
        )


def _keep_log(client: Any, container: str, root: StackRoot, name: str) -> None:
    root.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(private(str(root.log(name)), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        for chunk in client.api.logs(container, stream=True, follow=False):
            file.write(chunk)
