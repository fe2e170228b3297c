"""Containers stay in their place: no rights over the host, no way in but the loopback interface, bounded use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any, cast

from .base import UNKNOWN, Finding, Resource, Rule, Situation, items
from .containers import CONTAINER, JOB, TASK, containers_of

__all__ = ["RULES"]

_SOCKETS = re.compile(r"(^|/)(docker|containerd|podman|crio)\.sock$")
# Each of them is a way to what the host alone may do.
_CAPABILITIES = frozenset(
    {"ALL", "SYS_ADMIN", "SYS_PTRACE", "SYS_MODULE", "SYS_RAWIO", "NET_ADMIN", "DAC_READ_SEARCH", "BPF", "SYS_BOOT"}
)
_NAMESPACES = ("networkMode", "pidMode", "ipcMode", "usernsMode", "cgroupnsMode")


def _unprivileged(resource: Resource, _situation: Situation) -> Iterator[Finding]:
    if resource.type == TASK:
        for container in containers_of(resource):
            if container.given.get("privileged"):
                yield Finding(f"{container.path}privileged", "gives it the whole host", "leave it out")
            added = items(cast("Mapping[str, Any]", container.given.get("linuxParameters") or {}).get("capabilities"))
            for capability in [name for found in added for name in items(found.get("add"))]:
                if _is_strong(capability):
                    yield _capability(f"{container.path}linuxParameters.capabilities.add", capability)
        for field in ("pidMode", "ipcMode"):
            if resource.get(field) == "host":
                yield Finding(field, "is the host's", "leave it out")
        return
    if resource.type != CONTAINER:
        return
    if resource.get("privileged") is True:
        yield Finding("privileged", "gives it the whole host", "leave it out, and add the one capability it needs")
    for capability in items(resource.get("capabilities.adds")):
        if _is_strong(capability):
            yield _capability("capabilities.adds", capability)
    for field in _NAMESPACES:
        if resource.get(field) == "host":
            yield Finding(field, "is the host's", "leave it out, and give it a network of its own")
    if items(resource.get("devices")):
        yield Finding("devices", "gives it devices of the host", "leave it out; GPUs are given by `gpus`")
    for option in items(resource.get("securityOpts")):
        if str(option).partition("=")[2] == "unconfined" or str(option).partition(":")[2] == "unconfined":
            yield Finding("securityOpts", f"switches off what confines it ({option})", "leave that option out")


def _is_strong(capability: Any) -> bool:
    return str(capability).upper().removeprefix("CAP_") in _CAPABILITIES


def _capability(field: str, capability: Any) -> Finding:
    return Finding(field, f"adds {capability}, which is as good as the whole host", "leave it out")


def _no_socket(resource: Resource, _situation: Situation) -> Iterator[Finding]:
    hint = "use a volume; what must start containers asks a service which may start just these"
    for field, source in _sources(resource):
        if _SOCKETS.search(source):
            yield Finding(field, f"mounts the socket of a daemon ({source}): who has it has the host", hint)
        elif source == "/" or re.match(r"/(etc|proc|sys|dev|root|boot|var/run|var/lib/docker|run)(/|$)", source):
            yield Finding(field, f"mounts a folder of the host's own ({source})", hint)


def _sources(resource: Resource) -> Iterator[tuple[str, str]]:
    """Yield property and path of each folder or file of the host which is mounted."""
    found: list[tuple[str, Any]] = []
    if resource.type == CONTAINER:
        for number, mount in enumerate(items(resource.get("mounts"))):
            if mount.get("type") == "bind":
                found.append((f"mounts[{number}].source", mount.get("source")))
        for number, volume in enumerate(items(resource.get("volumes"))):
            found.append((f"volumes[{number}].hostPath", volume.get("hostPath")))
    elif resource.type == "docker:index/service:Service":
        for number, mount in enumerate(items(resource.get("taskSpec.containerSpec.mounts"))):
            if mount.get("type") == "bind":
                found.append((f"taskSpec.containerSpec.mounts[{number}].source", mount.get("source")))
    elif resource.type == JOB:
        for number, mount in enumerate(items(resource.get("mounts"))):
            found.append((f"mounts[{number}].volume", mount.get("volume")))
    elif resource.type == TASK:
        for number, volume in enumerate(items(resource.get("volumes"))):
            found.append((f"volumes[{number}].hostPath", volume.get("hostPath")))
    yield from ((field, source) for field, source in found if isinstance(source, str))


def _loopback(resource: Resource, _situation: Situation) -> Iterator[Finding]:
    if resource.type != CONTAINER:
        return
    hint = "say `ip: 127.0.0.1`"
    if resource.get("publishAllPorts") is True:
        yield Finding(
            "publishAllPorts", "publishes every port to every network of the host", "name the ports, and " + hint
        )
    for number, port in enumerate(items(resource.get("ports"))):
        address = port.get("ip")
        if address is UNKNOWN:
            continue
        try:
            inside = ip_address(str(address)).is_loopback
        except ValueError:
            inside = False
        if not inside:
            text = f"is {address}" if address else "is not given, which means every network of the host"
            yield Finding(f"ports[{number}].ip", text, hint)


def _read_only(resource: Resource, _situation: Situation) -> Iterator[Finding]:
    if resource.type == CONTAINER and resource.lacks("readOnly", True):
        yield Finding("readOnly", "is not set", "set it, and give the folders it writes to as `tmpfs` or as volumes")
    if resource.type == TASK:
        for container in containers_of(resource):
            if container.given.get("readonlyRootFilesystem") not in (True, UNKNOWN):
                field = f"{container.path}readonlyRootFilesystem"
                yield Finding(field, "is not set", "set it, and give the folders it writes to as `mountPoints`")


def _no_new_privileges(resource: Resource, _situation: Situation) -> Iterator[Finding]:
    if resource.type != CONTAINER or resource.get("securityOpts") is UNKNOWN:
        return
    right = {"no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"}
    if not right & {str(option) for option in items(resource.get("securityOpts"))}:
        yield Finding("securityOpts", "lets it gain rights by set-uid programs", "add `no-new-privileges:true`")


def _bounded(resource: Resource, _situation: Situation) -> Iterator[Finding]:
    field = {CONTAINER: "memory", JOB: "memoryMb"}.get(resource.type)
    if field and resource.get(field) is not UNKNOWN and not _positive(resource.get(field)):
        yield Finding(field, "is not given, so that it may take all there is", "give the most it may use, in MB")
    if resource.type == TASK and not resource.get("memory"):
        for container in containers_of(resource):
            if not container.given.get("memory"):
                yield Finding(f"{container.path}memory", "is not given", "give it, or the task's `memory`")


def _positive(value: Any) -> bool:
    try:
        return float(value) > 0
    except (TypeError, ValueError):
        return False


def _not_root(resource: Resource, _situation: Situation) -> Iterator[Finding]:
    hint = "name a user by number, such as 10001:10001"
    if resource.type in {CONTAINER, JOB}:
        user = resource.get("user")
        if user is not UNKNOWN and str(user or "").partition(":")[0] in {"", "0", "root"}:
            yield Finding("user", f"is {user}" if user else "is not given, which may mean root", hint)


RULES = (
    Rule(
        name="container-unprivileged",
        title="A container has no rights over its host",
        each=_unprivileged,
    ),
    Rule(
        name="container-no-socket",
        title="A container has neither a daemon's socket nor the host's own folders",
        each=_no_socket,
    ),
    Rule(
        name="container-loopback",
        title="A container publishes ports on the loopback interface alone",
        each=_loopback,
    ),
    Rule(
        name="container-read-only",
        title="A container cannot write to its own image",
        each=_read_only,
    ),
    Rule(
        name="container-no-new-privileges",
        title="A container cannot gain rights",
        each=_no_new_privileges,
    ),
    Rule(
        name="container-memory",
        title="A container has a limit of memory",
        each=_bounded,
    ),
    Rule(
        name="container-user",
        title="A container does not run as root",
        level="advisory",
        each=_not_root,
    ),
)
