"""The target of a program: by its name, or for the stack which the engine runs right now.

Only the target which is asked for is imported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ...runtime.common.errors import ConfigError
from ..layout import StackRoot, find_project
from ..settings import NAME_PATTERN
from .extras import missing, missing_error

if TYPE_CHECKING:
    from .aws.settings import AwsSettings
    from .base import Target
    from .docker.settings import DockerSettings

__all__ = ["TargetName", "make_target", "target_here"]

TargetName = Literal["local", "docker", "aws"]

_ENVIRONMENT = r"^[a-z][a-z0-9]*$"


def make_target(
    name: TargetName,
    *,
    team: str,
    environment: str,
    project: Path,
    docker: DockerSettings | None = None,
    aws: AwsSettings | None = None,
    expiring: Mapping[str, int] | None = None,
) -> Target:
    """Return the target `name` for one stack.

    Args:
        name: local, docker or aws.
        team: the team of the stack, the first part of its name.
        environment: its environment, the second part.
        project: the folder of Pulumi.yaml.
        docker: how it runs on that target; None takes the defaults.
        aws: how it runs on that target, which has no defaults.
        expiring: object store -> days after which S3 forgets what is in it.

    Raises:
        UserError: what the target imports is not installed.
        ConfigError: the target is aws, and `aws` is not given.
    """
    if missing(name):
        raise missing_error(name)
    stack = f"{team}-{environment}"
    root = StackRoot.of(project, stack).path
    if name == "docker":
        from .docker.settings import DockerSettings
        from .docker.target import DockerTarget

        return DockerTarget(team, environment, root=root, project=project, settings=docker or DockerSettings())
    if name == "aws":
        from .aws.target import AwsTarget

        if aws is None:
            raise ConfigError("is missing", field="aws", hint="say at least in which region: `aws=AwsSettings(...)`")
        return AwsTarget(team, environment, root=root, project=project, settings=aws, expiring=expiring)
    from .local.target import LocalTarget

    return LocalTarget(stack=stack, root=root, project=project)


def target_here(
    name: TargetName = "local", *, docker: DockerSettings | None = None, aws: AwsSettings | None = None
) -> Target:
    """Return the target `name` for the stack and the project of the program which runs right now.

    A stack which the engine knows as `harbour-dev` is the environment `dev` of the team `harbour`; one which it knows
    as `dev` is that environment of a team which is called as the project.

    Raises:
        UserError: what the target imports is not installed.
        ConfigError: the stack or the project has a name which cannot be part of others.
        NotFoundError: there is no Pulumi.yaml at or above the working directory.
    """
    import pulumi

    team, _, environment = pulumi.get_stack().rpartition("-")
    team = team or pulumi.get_project()
    if not re.match(NAME_PATTERN, team) or not re.match(_ENVIRONMENT, environment):
        raise ConfigError(
            "is no name of a stack",
            field="stack",
            value=f"{team}-{environment}",
            hint="call it TEAM-ENVIRONMENT, in lower case, or name the project after the team",
        )
    return make_target(name, team=team, environment=environment, project=find_project(), docker=docker, aws=aws)
