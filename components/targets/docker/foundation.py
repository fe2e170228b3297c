"""What the containers of a stack stand on: networks, images, volumes, and what each may use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import pulumi
import pulumi_docker as docker

from ...provider import resources as native
from ..base import ServiceArgs
from .images import Images
from .naming import USER, Names
from .settings import ContainerLimits, DockerSettings

__all__ = ["Foundation", "after", "kept"]


def kept(opts: pulumi.ResourceOptions) -> pulumi.ResourceOptions:
    """Return `opts` for what holds data, or the secrets which open it."""
    return pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(protect=True))


def after(opts: pulumi.ResourceOptions, resources: Sequence[pulumi.Resource]) -> pulumi.ResourceOptions:
    """Return `opts` of what waits for `resources`."""
    return pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=list(resources)))


class Foundation:
    """Each part is made when it is first asked for.

    Args:
        names: what things are called.
        root: the stack's folder on this machine.
        project: the folder of Pulumi.yaml.
        settings: the block `docker` of the stack config.

    Attributes:
        stack: the stack's name.
        host: the daemon, where the config names one.
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
        """Options of the vendor's resources: the daemon, where the config names one."""
        provider = docker.Provider("docker", host=self.host) if self.host else None
        return pulumi.ResourceOptions(provider=provider)

    def of(self, opts: pulumi.ResourceOptions) -> pulumi.ResourceOptions:
        """Return `opts` for a resource of the vendor's."""
        return pulumi.ResourceOptions.merge(opts, self.options)

    @cached_property
    def images(self) -> Images:
        """The images which containers are made of."""
        # Images are built through BuildKit, whose provider finds the daemon by itself.
        folder = Path(self.root) / "images"
        return Images(self.names, self._project, folder, self.settings, pulumi.ResourceOptions())

    @cached_property
    def private(self) -> docker.Network:
        """The network of all services, from which nothing leads out."""
        return self._network("private", internal=True)

    @cached_property
    def edge(self) -> docker.Network:
        """The network of those which are published, or may ask the world something."""
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
        """Return what a container may use: what the config says of it, or the component, or the config in general."""
        if name in self.settings.services:
            return self.settings.services[name]
        asked = args.limits if args else None
        return self.settings.limits.model_copy(
            update={
                **({"memory_mb": asked.memory_mb} if asked and asked.memory_mb else {}),
                **({"cpus": asked.cpu} if asked and asked.cpu else {}),
            }
        )

    def bounded(
        self, name: str, container: docker.Container, limits: ContainerLimits, opts: pulumi.ResourceOptions
    ) -> native.Bounds:
        """Bound the number of processes; who depends on this depends on the container."""
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
        """Make a volume which holds data."""
        return native.Volume(
            name,
            stack=self.stack,
            host=self.host,
            owner=owner,
            labels=self.names.labels(store=name),
            opts=kept(opts),
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
        """Make the volume with the config files and secrets of a container, which `owner` alone can read."""
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
