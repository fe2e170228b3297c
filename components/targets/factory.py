"""Makes the target of a program, by name or for the stack that the engine runs. Imports only that target."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ...runtime.common.errors import ConfigError
from ..layout import find_project
from ..settings import NAME_PATTERN
from .block import TargetBlock
from .registry import DEFAULT_TARGET, TARGETS, TargetName
from .spec import TargetContext

if TYPE_CHECKING:
    from .base import Target

_ENVIRONMENT = r"^[a-z][a-z0-9]*$"


def make_target(name: TargetName, context: TargetContext) -> Target:
    """Return the target `name` for one stack.

    Raises:
        UserError: modules that the target imports are not installed.
        ConfigError: the target needs a block and `context` has none.
    """
    TARGETS[name].require()
    return TARGETS[name].target(context)


def target_here(name: TargetName = DEFAULT_TARGET, **blocks: TargetBlock | None) -> Target:
    """Return the target `name` for the stack and the project of the running program.

    The stack `harbour-dev` is the environment `dev` of the team `harbour`. The stack `dev` is the environment `dev` of
    a team with the project's name.

    Args:
        name: the target.
        blocks: target -> its settings, such as `aws=AwsSettings(...)`; aws has no defaults.

    Raises:
        UserError: modules that the target imports are not installed.
        ConfigError: the name of the stack or project cannot be part of other names, or the target's block is missing.
        NotFoundError: there is no Pulumi.yaml at or above the working directory.
    """
    import pulumi

    if unknown := blocks.keys() - TARGETS.keys():
        raise TypeError(f"target_here() got an unexpected keyword argument {min(unknown)!r}")
    team, _, environment = pulumi.get_stack().rpartition("-")
    team = team or pulumi.get_project()
    if not re.match(NAME_PATTERN, team) or not re.match(_ENVIRONMENT, environment):
        raise ConfigError(
            "is not a valid stack name",
            field="stack",
            value=f"{team}-{environment}",
            hint="call it TEAM-ENVIRONMENT, in lower case, or name the project after the team",
        )
    return make_target(name, TargetContext(team, environment, find_project(), blocks.get(name)))
