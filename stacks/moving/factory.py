"""Opens the source and the destination of a migration for a stack. Imports only the target in use, and never Pulumi."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NoReturn

from ...components.targets.migration import MigrationDestination, MigrationSource
from ...components.targets.registry import names_where
from ...runtime.common.errors import UserError
from ..loading import LoadedStack
from .export import Subject


def subject_of(loaded: LoadedStack) -> Subject:
    """Return the description of the stack that an archive contains."""
    config = loaded.config
    return Subject(config.stack, config.team, config.target, tuple(config.models))


def require_migration(loaded: LoadedStack) -> None:
    """Check that `export` and `import` support the stack's target.

    Raises:
        UserError: they do not, or modules that the target imports are not installed.
    """
    if loaded.config.spec.source is None:
        _refuse(loaded.config.target)
    loaded.config.spec.require()


def source_of(loaded: LoadedStack) -> AbstractContextManager[MigrationSource]:
    """Open the stack for reading its contents.

    Raises:
        UserError: see `require_migration`.
    """
    require_migration(loaded)
    opened = loaded.config.spec.source or _refuse(loaded.config.target)
    return opened(loaded.config.on_target(loaded.project))


def destination_of(loaded: LoadedStack) -> AbstractContextManager[MigrationDestination]:
    """Open the stack, which is not up, for writing contents.

    Raises:
        UserError: see `require_migration`.
    """
    require_migration(loaded)
    opened = loaded.config.spec.destination or _refuse(loaded.config.target)
    return opened(loaded.config.on_target(loaded.project))


def _refuse(target: str) -> NoReturn:
    raise UserError(
        f"`tidemill export` and `tidemill import` support only {names_where('source')}",
        field="target",
        value=target,
        hint=f'move the contents as docs/moving.md says under "By hand, on {target}"',
    )
