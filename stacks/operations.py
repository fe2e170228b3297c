"""Selects the operations of the stack's target. It imports only the target in use, and never Pulumi."""

from __future__ import annotations

from ..components.layout import StackRoot
from ..components.targets.operations import Operations
from ..runtime.common.errors import UserError
from .loading import LoadedStack


def stack_operations(loaded: LoadedStack) -> Operations:
    """Return the operations of the platform of `loaded`.

    Raises:
        UserError: packages of its target are not installed.
    """
    spec = loaded.config.spec
    if not spec.light_operations:
        spec.require()
    return spec.operations(loaded.config.on_target(loaded.project))


def deployed_operations(loaded: LoadedStack) -> Operations:
    """Return the operations of a platform that was created by `up`.

    Raises:
        UserError: it was not.
    """
    operations = stack_operations(loaded)
    if not operations.made():
        raise UserError("the stack is not up", field=loaded.config.stack, hint="run `tidemill up`")
    return operations


def remove_deletion_protection(loaded: LoadedStack) -> None:
    """Remove the target's own deletion protection, before all data of `loaded` is deleted."""
    if loaded.config.spec.release:
        loaded.config.spec.release(loaded.config.on_target(loaded.project))


def local_root(loaded: LoadedStack, what: str) -> StackRoot:
    """Return the folders of a stack whose files are on this machine.

    Args:
        loaded: the stack.
        what: the files to find, for the error.

    Raises:
        UserError: the stack was never up, or its target keeps the files elsewhere.
    """
    deployed_operations(loaded)
    if not loaded.config.spec.host_files:
        raise UserError(
            f"the target {loaded.config.target} does not keep {what} on this machine",
            field=loaded.config.stack,
            hint="run this command where the server runs, and name the folder or file",
        )
    return StackRoot.of(loaded.project, loaded.config.stack)
