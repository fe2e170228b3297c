"""Chooses the ends of a stack whose contents move; only the target in use is imported, and never Pulumi."""

from __future__ import annotations

from tidemill.components.layout import StackRoot
from tidemill.components.targets.ends import NewEnds, OldEnds
from tidemill.runtime.errors import UserError

from ..loading import LoadedStack
from .export import Subject

__all__ = ["new_ends_of", "old_ends_of", "subject_of"]


def subject_of(loaded: LoadedStack) -> Subject:
    """Return what is said of the stack in an archive."""
    config = loaded.config
    return Subject(config.stack, config.team, config.target, tuple(config.models))


def old_ends_of(loaded: LoadedStack) -> OldEnds:
    """Return what the contents of the stack are read from.

    Raises:
        UserError: its target has no such ends.
    """
    _require_local(loaded)
    from tidemill.components.targets.local.ends import LocalOldEnds

    return LocalOldEnds(_root(loaded))


def new_ends_of(loaded: LoadedStack) -> NewEnds:
    """Return what contents are written to, for the stack.

    Raises:
        UserError: its target has no such ends.
    """
    _require_local(loaded)
    from tidemill.components.targets.local.ends import LocalNewEnds

    return LocalNewEnds(_root(loaded))


def _root(loaded: LoadedStack) -> StackRoot:
    return StackRoot.of(loaded.project, loaded.config.stack)


def _require_local(loaded: LoadedStack) -> None:
    if loaded.config.target != "local":
        raise UserError(
            "contents cannot be moved from or to this target yet",
            field="target",
            value=loaded.config.target,
            mend="see docs/moving.md",
        )
