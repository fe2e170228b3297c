"""One container, with everything that keeps it in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
import pulumi_docker as docker

from ..base import HealthCheck
from .images import Image
from .naming import MOUNT, PORT, SCRATCH, TMPFS, USER, Names
from .settings import ContainerLimits, DockerSettings

__all__ = ["Mounts", "Spec", "health_of", "make"]

# Asked every few seconds of every container: no module is loaded which it can do without.
_ASK = (
    "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 4); "
    "s.sendall(f'GET {sys.argv[2]} HTTP/1.0\\r\\nHost: 127.0.0.1:{sys.argv[1]}\\r\\n\\r\\n'.encode()); "
    "sys.exit(s.recv(64).split(None, 2)[1:2] != [b'200'])"
)
_HOME = {"HOME": SCRATCH, "LOGNAME": "tidemill"}


@dataclass(frozen=True)
class Mounts:
    """The volumes of a container: path -> volume."""

    files: pulumi.Input[str]
    volumes: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])

    def args(self) -> list[docker.ContainerMountArgs]:
        """Return them as the vendor's provider wants them."""
        # Each has its owner already. Docker would give an empty one that of the folder in the image, and it makes the
        # working folder, as root, where an image has none.
        as_it_is = docker.ContainerMountVolumeOptionsArgs(no_copy=True)
        kept = [
            docker.ContainerMountArgs(type="volume", source=source, target=target, volume_options=as_it_is)
            for target, source in sorted(self.volumes.items())
        ]
        return [docker.ContainerMountArgs(type="volume", source=self.files, target=MOUNT, read_only=True), *kept]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A container.

    Attributes:
        image: what it is made of.
        command: what it runs; where `entrypoint` is None, what the image's own is given.
        entrypoint: what runs the command; empty for nothing.
        env: its environment.
        mounts: its volumes.
        networks: name -> aliases.
        ports: ports of this machine's loopback interface -> its own.
        health: whether it is alive, as Docker asks it.
        start_seconds: until it counts as failed.
        user: whom it runs as.
        tmpfs: folders in memory.
        limits: what it may use.
        open_files: how many files it may open, or None for the daemon's own limit.
        stop_seconds: from SIGTERM to SIGKILL.
        working_dir: where it starts.
        digest: of its files, so that it is made anew when they are others.
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


def health_of(check: HealthCheck, image: Image) -> list[str]:
    """Return the command by which Docker asks whether a service is alive."""
    if image.ours:
        return ["CMD", "python", "-I", "-S", "-c", _ASK, str(PORT), check.path]
    url = f"http://127.0.0.1:{PORT}{check.path}"
    if check.basic:
        # It answers nobody without a password, and one in the arguments of a command could be read: who refuses, lives.
        script = f"said=$(wget -q -O /dev/null {url} 2>&1) || case \"$said\" in *' 401 '*) ;; *) exit 1 ;; esac"
        return ["CMD-SHELL", script]
    return ["CMD", "wget", "-q", "-O", "/dev/null", url]


def make(
    name: str, names: Names, settings: DockerSettings, spec: Spec, opts: pulumi.ResourceOptions
) -> docker.Container:
    """Declare the container of the service `name`; it counts as made when it is healthy."""
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
            docker.ContainerPortArgs(internal=own, external=port, ip="127.0.0.1", protocol="tcp")
            for port, own in spec.ports
        ],
        healthcheck=docker.ContainerHealthcheckArgs(
            tests=list(spec.health),
            interval="5s",
            timeout="5s",
            retries=3,
            start_period=f"{spec.start_seconds:.0f}s",
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
        # As much as the memory itself: none of it is swapped.
        memory_swap=spec.limits.memory_mb,
        cpus=f"{spec.limits.cpus:g}",
        ulimits=[docker.ContainerUlimitArgs(name="nofile", soft=files, hard=files)] if files else None,
        stop_timeout=max(1, round(spec.stop_seconds)),
        destroy_grace_seconds=max(1, round(spec.stop_seconds)),
        log_driver="json-file",
        log_opts={"max-size": f"{logs.max_size_mb}m", "max-file": str(logs.max_files)},
        labels=[docker.ContainerLabelArgs(label=key, value=value) for key, value in sorted(labels.items())],
        # Its name is its own, so that the old one must go first.
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(delete_before_replace=True)),
    )


def _pairs(env: Mapping[str, pulumi.Input[str]]) -> list[pulumi.Input[str]]:
    return [
        f"{key}={value}" if isinstance(value, str) else pulumi.Output.concat(f"{key}=", value)
        for key, value in sorted(env.items())
    ]
