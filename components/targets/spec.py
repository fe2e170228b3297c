"""What tidemill knows of a target before it loads the target's code. Imports no Pulumi.

Each target's folder contains a module `spec` with its `TargetSpec`; `registry` lists the folders. The fields that load
code are functions that import it when they are called.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ...runtime.common.errors import UserError
from ..layout import StackRoot
from .block import TargetBlock

if TYPE_CHECKING:
    from .base import Target
    from .migration import MigrationDestination, MigrationSource
    from .operations import Operations

_Block = TypeVar("_Block", bound=TargetBlock)


@dataclass(frozen=True)
class TargetContext:
    """The stack for which a target's code is loaded.

    Attributes:
        team, environment: together the stack's name.
        project: the folder of Pulumi.yaml.
        block: the target's block of the stack config; None takes the defaults.
        expiring: object store -> days after which the target deletes its objects, if services may not.
    """

    team: str
    environment: str
    project: Path
    block: TargetBlock | None = None
    expiring: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def stack(self) -> str:
        """TEAM-ENVIRONMENT."""
        return f"{self.team}-{self.environment}"

    @property
    def root(self) -> StackRoot:
        """The stack's folder on this machine."""
        return StackRoot.of(self.project, self.stack)

    def block_as(self, model: type[_Block]) -> _Block:
        """Return the block, or the defaults of `model` if the config has none."""
        return self.block if isinstance(self.block, model) else model()


@dataclass(frozen=True, kw_only=True)
class TargetSpec:
    """One target.

    Attributes:
        name: its name in a stack config, and the key of its block there.
        extra: the extra of tidemill that installs what it imports.
        modules: modules that it imports and that the light install does not have.
        plugins: providers of other vendors that its program uses; the engine downloads them.
        block: the model of its block in the stack config; None if it has no settings.
        questions: key of the block -> what `tidemill init` asks for it.
        light_operations: whether its `Operations` work with the light install and ask only this machine.
        host_ports: whether services listen on ports of this machine, which a config can fix.
        host_tools: whether servers are programs of this machine, from the tools table, and not images.
        host_files: whether config files, stores and databases of services are files of this machine.
        shared_state: whether the engine's state must be where the whole team can reach it.
        target: makes the `Target`.
        operations: makes the `Operations`.
        source, destination: open what `export` reads and `import` writes; None if contents cannot be moved.
        release: removes the protection of data before `destroy --delete-data`; None if there is none.
    """

    name: str
    extra: str
    modules: tuple[str, ...]
    plugins: tuple[str, ...] = ()
    block: type[TargetBlock] | None = None
    questions: Mapping[str, str] = field(default_factory=dict[str, str])
    light_operations: bool = False
    host_ports: bool = False
    host_tools: bool = False
    host_files: bool = False
    shared_state: bool = False
    target: Callable[[TargetContext], Target]
    operations: Callable[[TargetContext], Operations]
    source: Callable[[TargetContext], AbstractContextManager[MigrationSource]] | None = None
    destination: Callable[[TargetContext], AbstractContextManager[MigrationDestination]] | None = None
    release: Callable[[TargetContext], None] | None = None

    def missing(self) -> str | None:
        """Return the command that installs what the target imports, or None if all of it is installed."""
        if all(importlib.util.find_spec(module) for module in self.modules):
            return None
        return f'pip install "tidemill[{self.extra}]"'

    def require(self) -> None:
        """Check that everything the target imports is installed.

        Raises:
            UserError: a module is missing; the hint names the extra.
        """
        if hint := self.missing():
            raise UserError("its modules are not installed", field="target", value=self.name, hint=f"run `{hint}`")
