"""Chooses who operates a platform that is up; only the target in use is imported, and never Pulumi."""

from __future__ import annotations

from ..components.layout import StackRoot
from ..components.targets.operations import Operations
from ..runtime.common.errors import UserError
from .loading import LoadedStack

__all__ = ["local_root", "deployed_operations", "stack_operations", "release"]


def stack_operations(loaded: LoadedStack) -> Operations:
    """Return what operates the platform of `loaded`.

    Raises:
        UserError: what its target imports is not installed.
    """
    from ..components.targets.extras import missing, missing_error

    config = loaded.config
    root = StackRoot.of(loaded.project, config.stack)
    if config.target != "local" and missing(config.target):
        raise missing_error(config.target)
    if config.target == "docker":
        from ..components.targets.docker.operations import DockerOperations

        return DockerOperations(config.stack, root, config.docker)
    if config.target == "aws":
        from ..components.targets.aws.operations import AwsOperations

        return AwsOperations(config.stack, config.aws)
    from ..components.targets.local.operations import LocalOperations

    return LocalOperations(root)


def deployed_operations(loaded: LoadedStack) -> Operations:
    """Return what operates a platform which is, or was, up.

    Raises:
        UserError: it never was.
    """
    operations = stack_operations(loaded)
    if not operations.made():
        raise UserError("the stack is not up", field=loaded.config.stack, hint="run `tidemill up`")
    return operations


def release(loaded: LoadedStack) -> None:
    """Let go what the target itself keeps from being deleted, before all data of `loaded` is."""
    if loaded.config.target == "aws":
        from ..components.targets.aws.release import release as release_aws

        release_aws(loaded.config.stack, loaded.config.aws)


def local_root(loaded: LoadedStack, what: str) -> StackRoot:
    """Return the folders of a stack which is, or was, up, and whose files lie on this machine.

    Args:
        loaded: the stack.
        what: what is looked for there, in words.

    Raises:
        UserError: it never was up, or its target keeps that elsewhere.
    """
    deployed_operations(loaded)
    target = loaded.config.target
    if target != "local":
        raise UserError(
            f"{what}: on {target} these are not kept on this machine",
            field=loaded.config.stack,
            hint="run this command where the server runs, and name the folder or file",
        )
    return StackRoot.of(loaded.project, loaded.config.stack)
