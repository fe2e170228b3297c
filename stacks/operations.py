"""Returns the operations of a running platform. Imports only the target in use, and never Pulumi."""

from __future__ import annotations

from ..components.layout import StackRoot
from ..components.targets.operations import Operations
from ..runtime.common.errors import UserError
from .loading import LoadedStack

__all__ = ["local_root", "made_operations", "operations_of", "release"]


def operations_of(loaded: LoadedStack) -> Operations:
    """Return the operations of the platform of `loaded`.

    Raises:
        UserError: modules that its target imports are not installed.
    """
    spec = loaded.config.spec
    if not spec.light_operations:
        spec.require()
    return spec.operations(loaded.config.on_target(loaded.project))


def made_operations(loaded: LoadedStack) -> Operations:
    """Return what operates a platform which is, or was, up.

    Raises:
        UserError: it never was.
    """
    operations = operations_of(loaded)
    if not operations.made():
        raise UserError("the stack is not up", field=loaded.config.stack, hint="run `tidemill up`")
    return operations


def release(loaded: LoadedStack) -> None:
    """Remove what the target itself protects from deletion, before all data of `loaded` is deleted."""
    if loaded.config.spec.release:
        loaded.config.spec.release(loaded.config.on_target(loaded.project))


def local_root(loaded: LoadedStack, what: str) -> StackRoot:
    """Return the folders of a stack which is, or was, up, and whose files lie on this machine.

    Args:
        loaded: the stack.
        what: what is looked for there, in words.

    Raises:
        UserError: it never was up, or its target keeps that elsewhere.
    """
    made_operations(loaded)
    if not loaded.config.spec.host_files:
        raise UserError(
            f"{what}: on {loaded.config.target} these are not kept on this machine",
            field=loaded.config.stack,
            hint="run this command where the server runs, and name the folder or file",
        )
    return StackRoot.of(loaded.project, loaded.config.stack)
