"""Containers are isolated: no privileges on the host, ports only on the loopback interface, limited resources."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any, cast

from ..base import UNKNOWN, Finding, Resource, Rule, RuleContext, items
from ..containers import CONTAINER, JOB, TASK, containers_of

_SOCKETS = re.compile(r"(^|/)(docker|containerd|podman|crio)\.sock$")
# Each of these gives control of the host.
_CAPABILITIES = frozenset(
    {"ALL", "SYS_ADMIN", "SYS_PTRACE", "SYS_MODULE", "SYS_RAWIO", "NET_ADMIN", "DAC_READ_SEARCH", "BPF", "SYS_BOOT"}
)
_NAMESPACES = ("networkMode", "pidMode", "ipcMode", "usernsMode", "cgroupnsMode")


def _unprivileged(resource: Resource, _context: RuleContext) -> Iterator[Finding]:
    if resource.type == TASK:
        for container in containers_of(resource):
            if container.given.get("privileged"):
                yield Finding(f"{container.path}privileged", "gives it control of the host", "remove it")
            added = items(cast("Mapping[str, Any]", container.given.get("linuxParameters") or {}).get("capabilities"))
            for capability in [name for found in added for name in items(found.get("add"))]:
                if _is_strong(capability):
                    yield _capability(f"{container.path}linuxParameters.capabilities.add", capability)
        for field in ("pidMode", "ipcMode"):
            if resource.get(field) == "host":
                yield Finding(field, "is the host's", "remove it")
        return
    if resource.type != CONTAINER:
        return
    if resource.get("privileged") is True:
        yield Finding("privileged", "gives it control of the host", "remove it, and add the one capability it needs")
    for capability in items(resource.get("capabilities.adds")):
        if _is_strong(capability):
            yield _capability("capabilities.adds", capability)
    for field in _NAMESPACES:
        if resource.get(field) == "host":
            yield Finding(field, "is the host's", "remove it, and create a network for it")
    if items(resource.get("devices")):
        yield Finding("devices", "gives it devices of the host", "remove it; use `gpus` for GPUs")
    for option in items(resource.get("securityOpts")):
        if str(option).partition("=")[2] == "unconfined" or str(option).partition(":")[2] == "unconfined":
            yield Finding("securityOpts", f"switches off its confinement ({option})", "remove that option")


def _is_strong(capability: Any) -> bool:
    return str(capability).upper().removeprefix("CAP_") in _CAPABILITIES


def _capability(field: str, capability: Any) -> Finding:
    return Finding(field, f"adds {capability}, which gives control of the host", "remove it")


def _no_socket(resource: Resource, _context: RuleContext) -> Iterator[Finding]:
    hint = "use a volume; let a service with narrow rights start containers"
    for field, source in _sources(resource):
        if _SOCKETS.search(source):
            yield Finding(field, f"mounts the socket of a daemon ({source}), which gives control of the host", hint)
        elif source == "/" or re.match(r"/(etc|proc|sys|dev|root|boot|var/run|var/lib/docker|run)(/|$)", source):
            yield Finding(field, f"mounts a system folder of the host ({source})", hint)


def _sources(resource: Resource) -> Iterator[tuple[str, str]]:
    """Yield property and path of each mounted folder or file of the host."""
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


def _loopback(resource: Resource, _context: RuleContext) -> Iterator[Finding]:
    if resource.type != CONTAINER:
        return
    hint = "set `ip: 127.0.0.1`"
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
            text = f"is {address}" if address else "is not set, which means every network of the host"
            yield Finding(f"ports[{number}].ip", text, hint)


def _read_only(resource: Resource, _context: RuleContext) -> Iterator[Finding]:
    if resource.type == CONTAINER and resource.lacks("readOnly", True):
        yield Finding("readOnly", "is not set", "set it, and mount the folders it writes to as `tmpfs` or volumes")
    if resource.type == TASK:
        for container in containers_of(resource):
            if container.given.get("readonlyRootFilesystem") not in (True, UNKNOWN):
                field = f"{container.path}readonlyRootFilesystem"
                yield Finding(field, "is not set", "set it, and mount the folders it writes to with `mountPoints`")


def _no_new_privileges(resource: Resource, _context: RuleContext) -> Iterator[Finding]:
    if resource.type != CONTAINER or resource.get("securityOpts") is UNKNOWN:
        return
    right = {"no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"}
    if not right & {str(option) for option in items(resource.get("securityOpts"))}:
        yield Finding("securityOpts", "lets it gain privileges by set-uid programs", "add `no-new-privileges:true`")


def _memory_limit(resource: Resource, _context: RuleContext) -> Iterator[Finding]:
    field = {CONTAINER: "memory", JOB: "memoryMb"}.get(resource.type)
    if field and resource.get(field) is not UNKNOWN and not _positive(resource.get(field)):
        yield Finding(field, "is not set, so it can use all memory", "set the maximum in MB")
    if resource.type == TASK and not resource.get("memory"):
        for container in containers_of(resource):
            if not container.given.get("memory"):
                yield Finding(f"{container.path}memory", "is not set", "set it, or the task's `memory`")


def _positive(value: Any) -> bool:
    try:
        return float(value) > 0
    except (TypeError, ValueError):
        return False


def _not_root(resource: Resource, _context: RuleContext) -> Iterator[Finding]:
    hint = "set a user by number, such as 10001:10001"
    if resource.type in {CONTAINER, JOB}:
        user = resource.get("user")
        if user is not UNKNOWN and str(user or "").partition(":")[0] in {"", "0", "root"}:
            yield Finding("user", f"is {user}" if user else "is not set, which may mean root", hint)


RULES = (
    Rule(
        name="container-unprivileged", title="A container has no privileges on its host", check_resource=_unprivileged
    ),
    Rule(
        name="container-no-socket",
        title="A container mounts neither a daemon's socket nor system folders of the host",
        check_resource=_no_socket,
    ),
    Rule(
        name="container-loopback",
        title="A container publishes ports only on the loopback interface",
        check_resource=_loopback,
    ),
    Rule(name="container-read-only", title="A container cannot write to its own image", check_resource=_read_only),
    Rule(
        name="container-no-new-privileges",
        title="A container cannot gain privileges",
        check_resource=_no_new_privileges,
    ),
    Rule(name="container-memory", title="A container has a memory limit", check_resource=_memory_limit),
    Rule(name="container-user", title="A container does not run as root", level="advisory", check_resource=_not_root),
)
