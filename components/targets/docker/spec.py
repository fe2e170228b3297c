"""The target `docker` as the registry knows it. Imports neither Pulumi nor Docker's SDK."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from ..migration import MigrationDestination, MigrationSource
from ..operations import Operations
from ..spec import TargetContext, TargetSpec
from .settings import DockerSettings

if TYPE_CHECKING:
    from ..base import Target


def _target(context: TargetContext) -> Target:
    from .target import DockerTarget

    return DockerTarget(
        context.team,
        context.environment,
        root=context.root.path,
        project=context.project,
        settings=context.block_as(DockerSettings),
    )


def _operations(context: TargetContext) -> Operations:
    from .operations import DockerOperations

    return DockerOperations(context.stack, context.root, context.block_as(DockerSettings))


def _source(context: TargetContext) -> AbstractContextManager[MigrationSource]:
    from .migration_export import DockerSource
    from .naming import Names

    return DockerSource(Names(context.team, context.environment), context.root, context.block_as(DockerSettings))


def _destination(context: TargetContext) -> AbstractContextManager[MigrationDestination]:
    from .migration_import import DockerDestination
    from .naming import Names

    return DockerDestination(Names(context.team, context.environment), context.root, context.block_as(DockerSettings))


SPEC = TargetSpec(
    name="docker",
    extra="docker",
    modules=("pulumi", "pulumi_docker", "pulumi_docker_build", "docker"),
    plugins=("docker", "docker-build"),
    block=DockerSettings,
    host_ports=True,
    target=_target,
    operations=_operations,
    source=_source,
    destination=_destination,
)
