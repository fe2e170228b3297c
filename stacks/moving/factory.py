"""Chooses the ends of a stack whose contents move; only the target in use is imported, and never Pulumi."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from ...components.layout import StackRoot
from ...components.targets.extras import missing, missing_error
from ...components.targets.migration import NewEnds, OldEnds
from ...runtime.common.errors import UserError
from ..loading import LoadedStack
from .export import Subject

__all__ = ["new_ends_of", "old_ends_of", "require_ends", "subject_of"]


def subject_of(loaded: LoadedStack) -> Subject:
    """Return what is said of the stack in an archive."""
    config = loaded.config
    return Subject(config.stack, config.team, config.target, tuple(config.models))


def require_ends(loaded: LoadedStack) -> None:
    """Refuse a stack whose contents neither command can move.

    Raises:
        UserError: its target has no ends, or what it imports is not installed.
    """
    target = loaded.config.target
    if target not in ("local", "docker"):
        raise UserError(
            "`tidemill export` and `tidemill import` know local and docker alone",
            field="target",
            value=target,
            hint=f'move it by hand, as docs/moving.md says under "By hand, on {target}"',
        )
    if missing(target):
        raise missing_error(target)


@contextmanager
def old_ends_of(loaded: LoadedStack) -> Generator[OldEnds]:
    """Give what the contents of the stack are read from.

    Raises:
        UserError: its target has no such ends.
    """
    require_ends(loaded)
    config, root = loaded.config, StackRoot.of(loaded.project, loaded.config.stack)
    if config.target == "local":
        from ...components.targets.local.migration import LocalOldEnds

        yield LocalOldEnds(root)
        return
    from ...components.targets.docker.migration_export import DockerOldEnds
    from ...components.targets.docker.naming import Names

    with DockerOldEnds(Names(config.team, config.environment), root, config.docker) as ends:
        yield ends


@contextmanager
def new_ends_of(loaded: LoadedStack) -> Generator[NewEnds]:
    """Give what contents are written to, for the stack.

    Raises:
        UserError: its target has no such ends.
    """
    require_ends(loaded)
    config, root = loaded.config, StackRoot.of(loaded.project, loaded.config.stack)
    if config.target == "local":
        from ...components.targets.local.migration import LocalNewEnds

        yield LocalNewEnds(root)
        return
    from ...components.targets.docker.migration_import import DockerNewEnds
    from ...components.targets.docker.naming import Names

    with DockerNewEnds(Names(config.team, config.environment), root, config.docker) as ends:
        yield ends
