"""Chooses the ends of a stack whose contents move; only the target in use is imported, and never Pulumi."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from tidemill.components.layout import StackRoot
from tidemill.components.targets.ends import NewEnds, OldEnds
from tidemill.components.targets.extras import missing, missing_error
from tidemill.runtime.errors import UserError

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
            mend=f'move it by hand, as docs/moving.md says under "By hand, on {target}"',
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
        from tidemill.components.targets.local.ends import LocalOldEnds

        yield LocalOldEnds(root)
        return
    from tidemill.components.targets.docker.ends import DockerOldEnds
    from tidemill.components.targets.docker.naming import Names

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
        from tidemill.components.targets.local.ends import LocalNewEnds

        yield LocalNewEnds(root)
        return
    from tidemill.components.targets.docker.naming import Names
    from tidemill.components.targets.docker.new_ends import DockerNewEnds

    with DockerNewEnds(Names(config.team, config.environment), root, config.docker) as ends:
        yield ends
