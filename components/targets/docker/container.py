"""Declares one container, with the restrictions that all containers have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
import pulumi_docker as docker

from ...images.catalog import Image
from ...images.container_layout import MOUNT, PORT, SCRATCH, USER
from ...images.health import upstream_health
from ..base import HealthCheck
from .naming import TMPFS, Names
from .settings import ContainerLimits, DockerSettings

# Runs every few seconds in every container, so it imports as little as possible.
_PROBE = (
    "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 4); "
    "s.sendall(f'GET {sys.argv[2]} HTTP/1.0\\r\\nHost: 127.0.0.1:{sys.argv[1]}\\r\\n\\r\\n'.encode()); "
    "sys.exit(s.recv(64).split(None, 2)[1:2] != [b'200'])"
)
_HOME = {"HOME": SCRATCH, "LOGNAME": "tidemill"}


@dataclass(frozen=True)
class Mounts:
    """The volumes of a container.

    Attributes:
        files: the volume with its config files and secrets, mounted read-only.
        volumes: path -> volume.
    """

    files: pulumi.Input[str]
    volumes: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])

    def args(self) -> list[docker.ContainerMountArgs]:
        """Return them for the Docker provider."""
        # Each volume has its owner already. Docker would give an empty one the owner of the folder in the image.
        no_copy = docker.ContainerMountVolumeOptionsArgs(no_copy=True)
        writable = [
            docker.ContainerMountArgs(type="volume", source=source, target=target, volume_options=no_copy)
            for target, source in sorted(self.volumes.items())
        ]
        return [docker.ContainerMountArgs(type="volume", source=self.files, target=MOUNT, read_only=True), *writable]


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """A container.

    Attributes:
        image: its image.
        command: the command; if `entrypoint` is None, the arguments of the image's own entry point.
        entrypoint: the entry point; empty for none.
        env: environment variables.
        mounts: its volumes.
        networks: (network, aliases).
        ports: (port on the loopback interface of this machine, port of the container).
        health: the command with which Docker checks its health.
        start_seconds: time after which the start has failed.
        user: user and group of its process.
        tmpfs: path -> options of folders in memory.
        limits: its resource limits.
        open_files: limit of open files, or None for the daemon's own limit.
        stop_seconds: from SIGTERM to SIGKILL.
        working_dir: its working directory.
        digest: digest of its files; a change replaces the container.
    """

    image: Image
    command: Sequence[pulumi.Input[str]]
    entrypoint: Sequence[str] | None = ()
    env: Mapping[str, pulumi.Input[str]]
    mounts: Mounts
    networks: Sequence[tuple[pulumi.Input[str], Sequence[str]]]
    ports: Sequence[tuple[pulumi.Input[int], int]] = ()
    health: Sequence[str]
    start_seconds: float
    user: int = USER
    tmpfs: Mapping[str, str] = field(default_factory=lambda: TMPFS)
    limits: ContainerLimits
    open_files: int | None = None
    stop_seconds: float = 10.0
    working_dir: str | None = SCRATCH
    digest: pulumi.Input[str]


def health_command(check: HealthCheck, image: Image) -> list[str]:
    """Return the command with which Docker checks the health of a service."""
    if image.ours:
        return ["CMD", "python", "-I", "-S", "-c", _PROBE, str(PORT), check.path]
    return upstream_health(check)


def declare_container(
    name: str, names: Names, settings: DockerSettings, spec: ContainerSpec, opts: pulumi.ResourceOptions
) -> docker.Container:
    """Declare the container of the service `name`; the engine waits until it is healthy."""
    logs = settings.logs
    files = spec.open_files
    labels = {**names.labels(service=name), "tidemill.files": spec.digest}
    return docker.Container(
        name,
        name=names.of(name),
        image=spec.image.reference,
        command=list(spec.command),
        entrypoints=list(spec.entrypoint) if spec.entrypoint else None,
        envs=_pairs({**_HOME, **spec.env}),
        hostname=name,
        user=f"{spec.user}:{spec.user}",
        working_dir=spec.working_dir,
        mounts=spec.mounts.args(),
        tmpfs=dict(spec.tmpfs),
        networks_advanced=[
            docker.ContainerNetworksAdvancedArgs(name=network, aliases=list(aliases) or None)
            for network, aliases in spec.networks
        ],
        ports=[
            docker.ContainerPortArgs(internal=internal, external=port, ip="127.0.0.1", protocol="tcp")
            for port, internal in spec.ports
        ],
        healthcheck=docker.ContainerHealthcheckArgs(
            tests=list(spec.health), interval="5s", timeout="5s", retries=3, start_period=f"{spec.start_seconds:.0f}s"
        ),
        wait=True,
        wait_timeout=int(spec.start_seconds) + 30,
        restart="unless-stopped",
        must_run=True,
        init=True,
        read_only=True,
        privileged=False,
        capabilities=docker.ContainerCapabilitiesArgs(drops=["ALL"]),
        security_opts=["no-new-privileges:true"],
        memory=spec.limits.memory_mb,
        # Equal to the memory: no swap.
        memory_swap=spec.limits.memory_mb,
        cpus=f"{spec.limits.cpus:g}",
        ulimits=[docker.ContainerUlimitArgs(name="nofile", soft=files, hard=files)] if files else None,
        stop_timeout=max(1, round(spec.stop_seconds)),
        destroy_grace_seconds=max(1, round(spec.stop_seconds)),
        log_driver="json-file",
        log_opts={"max-size": f"{logs.max_size_mb}m", "max-file": str(logs.max_files)},
        labels=[docker.ContainerLabelArgs(label=key, value=value) for key, value in sorted(labels.items())],
        # The name is fixed, so the old container must go first.
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(delete_before_replace=True)),
    )


def _pairs(env: Mapping[str, pulumi.Input[str]]) -> list[pulumi.Input[str]]:
    return [
        f"{key}={value}" if isinstance(value, str) else pulumi.Output.concat(f"{key}=", value)
        for key, value in sorted(env.items())
    ]
