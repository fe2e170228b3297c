"""The target `local` as the registry knows it. Imports no Pulumi."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from ..migration import MigrationDestination, MigrationSource
from ..operations import Operations
from ..spec import TargetContext, TargetSpec

if TYPE_CHECKING:
    from ..base import Target


def _target(context: TargetContext) -> Target:
    from .target import LocalTarget

    return LocalTarget(stack=context.stack, root=context.root.path, project=context.project)


def _operations(context: TargetContext) -> Operations:
    from .operations import LocalOperations

    return LocalOperations(context.root)


def _source(context: TargetContext) -> AbstractContextManager[MigrationSource]:
    from .migration import LocalSource

    return nullcontext(LocalSource(context.root))


def _destination(context: TargetContext) -> AbstractContextManager[MigrationDestination]:
    from .migration import LocalDestination

    return nullcontext(LocalDestination(context.root))


SPEC = TargetSpec(
    name="local",
    extra="platform",
    modules=("pulumi", "supervisor"),
    light_operations=True,
    host_ports=True,
    host_tools=True,
    host_files=True,
    target=_target,
    operations=_operations,
    source=_source,
    destination=_destination,
)
