"""The shared parts of a stack on docker: networks, images, volumes, limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import pulumi
import pulumi_docker as docker

from ...images.container_layout import USER
from ...provider import resources as native
from ..base import ServiceArgs
from ..options import after, protected
from .images import DockerImages
from .naming import Names
from .settings import ContainerLimits, DockerSettings


class Foundation:
    """Creates each shared part when it is first used.

    Args:
        names: names of the stack in Docker.
        root: the stack's folder on this machine.
        project: the folder of Pulumi.yaml.
        settings: the block `docker` of the stack config.

    Attributes:
        stack: the stack's name.
        host: the daemon that the config names, or None.
    """

    def __init__(self, names: Names, *, root: Path, project: Path, settings: DockerSettings) -> None:
        self.names = names
        self.stack = names.stack
        self.root = str(root)
        self.settings = settings
        self.host = settings.host
        self._project = project

    @cached_property
    def options(self) -> pulumi.ResourceOptions:
        """Options for resources of the Docker provider."""
        provider = docker.Provider("docker", host=self.host) if self.host else None
        return pulumi.ResourceOptions(provider=provider)

    def with_provider(self, opts: pulumi.ResourceOptions) -> pulumi.ResourceOptions:
        """Return `opts` for a resource of the Docker provider."""
        return pulumi.ResourceOptions.merge(opts, self.options)

    @cached_property
    def images(self) -> DockerImages:
        """The images of the containers."""
        return DockerImages(self.names, self._project, Path(self.root) / "images", self.settings)

    @cached_property
    def private(self) -> docker.Network:
        """The network of all services, without access to the outside."""
        return self._network("private", internal=True)

    @cached_property
    def edge(self) -> docker.Network:
        """The network of services with published ports, and of jobs that need the internet."""
        return self._network("edge", internal=False)

    def _network(self, name: str, *, internal: bool) -> docker.Network:
        labels = sorted(self.names.labels().items())
        return docker.Network(
            f"network-{name}",
            name=self.names.of(name),
            driver="bridge",
            internal=internal,
            labels=[docker.NetworkLabelArgs(label=key, value=value) for key, value in labels],
            opts=pulumi.ResourceOptions.merge(self.options, pulumi.ResourceOptions(delete_before_replace=True)),
        )

    def limits(self, name: str, args: ServiceArgs | None) -> ContainerLimits:
        """Return a container's limits: those of the config for it, else the component's, else the config's default."""
        if name in self.settings.services:
            return self.settings.services[name]
        own = args.limits if args else None
        return self.settings.limits.model_copy(
            update={
                **({"memory_mb": own.memory_mb} if own and own.memory_mb else {}),
                **({"cpus": own.cpu} if own and own.cpu else {}),
            }
        )

    def bounded(
        self, name: str, container: docker.Container, limits: ContainerLimits, opts: pulumi.ResourceOptions
    ) -> native.Bounds:
        """Limit the number of processes; resources that depend on the container depend on this."""
        return native.Bounds(
            f"bounds-{name}",
            name=name,
            stack=self.stack,
            host=self.host,
            container=container.id,
            processes=limits.processes,
            opts=after(opts, [container]),
        )

    def volume(self, name: str, opts: pulumi.ResourceOptions, *, owner: int = USER) -> native.Volume:
        """Create a volume for data."""
        return native.Volume(
            name,
            stack=self.stack,
            host=self.host,
            owner=owner,
            labels=self.names.labels(store=name),
            opts=protected(opts),
        )

    def files(
        self,
        name: str,
        files: Mapping[str, pulumi.Input[str]] | None,
        secrets: Sequence[str],
        opts: pulumi.ResourceOptions,
        *,
        owner: int = USER,
    ) -> native.Files:
        """Create the volume with the config files and secrets of a container; only `owner` can read them."""
        return native.Files(
            f"files-{name}",
            name=name,
            stack=self.stack,
            root=self.root,
            host=self.host,
            owner=owner,
            files=files,
            secrets=secrets,
            labels=self.names.labels(),
            opts=opts,
        )
