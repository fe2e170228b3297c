"""Looks for what a graph refers to and does not have: volumes, secrets, files, hosts, images.

Each target has a rule of its own, since each says in its own way where things are; `RULES` holds them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

NATIVE = "tidemill-native"
CONTAINER = "docker:index/container:Container"
SECRET_KINDS = ("secret", "secret-file", "bcrypt")
_PLACEHOLDER = re.compile(r"@\{([a-z-]+)(?::([^{}]*))?\}")


@dataclass(frozen=True)
class Declared:
    """A resource of a graph, by type and name, with what the program gave it."""

    type: str
    name: str
    inputs: Mapping[str, Any]


def named(kind: str, graph: Iterable[Declared]) -> set[str]:
    return {found.name for found in graph if found.type == kind}


def placeholders(value: Any) -> set[tuple[str, str]]:
    return {(kind, name) for kind, name in _PLACEHOLDER.findall(json.dumps(value))}


def local(graph: list[Declared]) -> list[str]:
    """Return what services and jobs of this machine refer to and the stack has not."""
    secrets, folders = named(f"{NATIVE}:local:Secret", graph), named(f"{NATIVE}:local:Folder", graph)
    endpoints = named(f"{NATIVE}:local:Endpoint", graph)
    wrong: list[str] = []
    for found in graph:
        if found.type not in {f"{NATIVE}:local:Service", f"{NATIVE}:local:Job"}:
            continue
        for kind, name in placeholders(found.inputs):
            known = secrets if kind in SECRET_KINDS else folders if kind in {"store", "database"} else None
            if known is not None and name not in known:
                wrong.append(f"{found.name}: {kind} {name}")
            if kind in SECRET_KINDS and name not in found.inputs["secrets"]:
                wrong.append(f"{found.name}: does not list the secret {name}")
        wrong += [f"{found.name}: endpoint {name}" for name in set(found.inputs.get("endpoints", ())) - endpoints]
    return wrong


def docker(graph: list[Declared]) -> list[str]:
    """Return what containers refer to and the stack has not."""
    stack = Docker(graph)
    return [wrong for container in stack.processes for wrong in stack.dangling(container)]


class Docker:
    """The parts of a graph of containers by what they are called in Docker."""

    def __init__(self, graph: list[Declared]) -> None:
        self.graph = graph
        of = lambda kind: [found for found in graph if found.type == kind]  # noqa: E731
        self.secrets = named(f"{NATIVE}:local:Secret", graph)
        self.containers = {found.name: found for found in of(CONTAINER)}
        self.jobs = {found.name: found for found in of(f"{NATIVE}:docker:Job")}
        self.processes = [*self.containers.values(), *self.jobs.values()]
        self.networks = {found.inputs["name"] for found in of("docker:index/network:Network")}
        self.files = {
            f"tidemill-{found.inputs['stack']}-{found.inputs['name']}-files": found
            for found in of(f"{NATIVE}:docker:Files")
        }
        self.volumes = {
            f"tidemill-{found.inputs['stack']}-{found.inputs['name']}"
            for kind in ("Volume", "Scratch")
            for found in of(f"{NATIVE}:docker:{kind}")
        }
        self.images = {found.inputs["name"] for found in of("docker:index/remoteImage:RemoteImage")}
        self.images |= {tag for found in of("docker-build:index:Image") for tag in found.inputs["tags"]}
        self.hosts: dict[str, set[str]] = {}
        for container in self.containers.values():
            for network in container.inputs["networksAdvanced"]:
                for alias in network.get("aliases") or ():
                    self.hosts.setdefault(alias, set()).add(network["name"])

    def files_of(self, process: Declared) -> Declared:
        """Return the Files resource which a container or job mounts."""
        (source,) = [
            mount.get("source") or mount["volume"]
            for mount in process.inputs["mounts"]
            if mount["target"] == "/run/tidemill"
        ]
        return self.files[re.sub(r"-[0-9a-f]{12}$", "", source)]

    def networks_of(self, process: Declared) -> set[str]:
        given = process.inputs.get("networksAdvanced")
        return {network["name"] for network in given} if given else set(process.inputs["networks"])

    def texts_of(self, process: Declared) -> str:
        """Return all that a process is told, as one text."""
        told = [
            process.inputs.get(key)
            for key in ("command", "argv", "entrypoints", "entrypoint", "envs", "env", "healthcheck")
        ]
        return "\n".join(_strings([told, self.files_of(process).inputs.get("files", {})]))

    def dangling(self, process: Declared) -> list[str]:
        files = self.files_of(process).inputs
        text = self.texts_of(process)
        targets = {mount["target"] for mount in process.inputs["mounts"]}
        networks = self.networks_of(process)
        held = {f"secrets/{name}" for name in files.get("secrets") or ()} | set(files.get("files") or ())
        wrong = [f"no volume {source}" for source in self.sources(process) if not self.has_volume(source)]
        wrong += [f"no network {name}" for name in networks - self.networks]
        wrong += [f"no image {process.inputs['image']}"] * (process.inputs["image"] not in self.images)
        wrong += [f"no secret {name}" for name in set(files.get("secrets") or ()) - self.secrets]
        for kind, name in placeholders(files.get("files", {})):
            if kind not in {"secret", "bcrypt"} or name not in self.secrets:
                wrong.append(f"placeholder {kind} {name} in its files")
        wrong += [f"placeholder {kind} {name}" for kind, name in placeholders(process.inputs)]
        # A folder may be named too, and a config which globs its files.
        for path in re.findall(r"/run/tidemill/((?:config|secrets)/[A-Za-z0-9._/-]+)", text):
            if not any(name == path or name.startswith(f"{path.rstrip('/')}/") for name in held):
                wrong.append(f"no file {path}")
        for path in re.findall(r"(?<![A-Za-z0-9])(/data/[A-Za-z0-9._-]+)", text):
            if path not in targets:
                wrong.append(f"nothing mounted at {path}")
        for host in re.findall(r"(?:https?://|\")([a-z][a-z0-9-]*):8080", text) + re.findall(r"@([a-z]+):5432", text):
            if not self.hosts.get(host, set()) & networks:
                wrong.append(f"cannot reach {host}")
        return [f"{process.name}: {what}" for what in wrong]

    @staticmethod
    def sources(process: Declared) -> list[str]:
        return [mount.get("source") or mount["volume"] for mount in process.inputs["mounts"]]

    def has_volume(self, source: str) -> bool:
        return source in self.volumes or re.sub(r"-[0-9a-f]{12}$", "", source) in self.files


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def aws(graph: list[Declared]) -> list[str]:
    """Return what tasks of AWS refer to and the stack has not."""
    from tests.support.aws_graph import Aws

    return Aws(graph).dangling()


RULES: dict[str, Callable[[list[Declared]], list[str]]] = {"local": local, "docker": docker, "aws": aws}
"""Target -> what finds the dangling references of a graph on it."""
