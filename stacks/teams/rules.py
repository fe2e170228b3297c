"""The rules across teams: `teams.yaml` beside the stack configs, which may be left out. Imports no Pulumi.

names: { model: "[a-z]+(-[a-z]+)?" }
environments:
  dev: { targets: [local, docker] }
  prod: { targets: [aws] }
quotas: { models: 5 }
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from ...components.settings import NAME_PATTERN, Port
from ...components.targets.registry import TargetName
from ...runtime.common.settings import Settings

__all__ = ["EnvironmentRules", "NameRules", "PortRange", "Quotas", "TeamRules", "TeamsRules"]


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression ({error}); see Python's `re`") from None
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]


class NameRules(Settings):
    """What things may be called, besides what tidemill itself allows: expressions which the whole name must match."""

    team: Pattern | None = Field(default=None, description="Names of teams.", examples=["[a-z]+"])
    model: Pattern | None = Field(default=None, description="Names of models.", examples=["[a-z]+(-[a-z]+)?"])
    repository: Pattern | None = Field(default=None, description="Names of repositories.", examples=["[a-z-]+"])
    owner: Pattern | None = Field(default=None, description="Who answers for a model.", examples=[r".+@example\.org"])
    domain: Pattern | None = Field(
        default=None, description="Domains of stacks on aws.", examples=[r".+\.ml\.example\.org"]
    )


class Quotas(Settings):
    """The most of something that one stack may have."""

    models: int | None = Field(default=None, ge=0, description="Models of one stack.", examples=[5])
    repositories: int | None = Field(default=None, ge=0, description="Repositories of one stack.", examples=[10])
    workers: int | None = Field(
        default=None, ge=0, description="Processes which serve models of one stack: the sum of serve.workers.",
        examples=[16],
    )  # fmt: skip
    stacks: int | None = Field(default=None, ge=0, description="Stacks of one team.", examples=[3])

    def over(self, other: Quotas) -> Quotas:
        """Return these, and those of `other` where these say nothing."""
        own = self.model_dump(exclude_none=True)
        return Quotas.model_validate({**other.model_dump(exclude_none=True), **own})


class EnvironmentRules(Settings):
    """What the stacks of one environment keep to."""

    targets: list[TargetName] | None = Field(
        default=None, min_length=1, description="Where they may run. Default: anywhere.", examples=[["local", "docker"]]
    )
    quotas: Quotas = Field(default=Quotas(), description="What one of them may have.")


class PortRange(Settings):
    """A range of ports."""

    first: Port = Field(description="Its first port.", examples=[21000])
    last: Port = Field(description="Its last port.", examples=[21099])

    @model_validator(mode="after")
    def _in_order(self) -> PortRange:
        if self.last < self.first:
            raise ValueError("last comes before first; exchange them")
        return self


class TeamRules(Settings):
    """What one team keeps to."""

    environments: list[str] | None = Field(
        default=None, description="The environments it may have. Default: any.", examples=[["dev", "prod"]]
    )
    ports: PortRange | None = Field(default=None, description="Where its fixed ports lie.")
    quotas: Quotas = Field(default=Quotas(), description="What one of its stacks may have, whatever is said elsewhere.")


class TeamsRules(Settings):
    """The rules which all stacks of the project keep."""

    names: NameRules = Field(default=NameRules(), description="What things may be called.")
    quotas: Quotas = Field(default=Quotas(), description="What a stack may have where nothing else is said.")
    environments: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*$")], EnvironmentRules] = Field(
        default_factory=dict[str, EnvironmentRules],
        description="Environment -> its rules. With any, there are no others.",
        examples=[{"dev": {"targets": ["local", "docker"]}, "prod": {"targets": ["aws"]}}],
    )
    teams: dict[Annotated[str, Field(pattern=NAME_PATTERN)], TeamRules] = Field(
        default_factory=dict[str, TeamRules],
        description="Team -> its own rules. With any, there are no others; `{}` asks nothing of a team.",
        examples=[{"flights": {"quotas": {"models": 20}}, "harbour": {}}],
    )
    one_host: bool = Field(
        default=True,
        description="Whether stacks on local and docker may meet on one machine, where a port is there once. `false` "
        "where each runs on a machine of its own.",
    )

    def quotas_of(self, team: str, environment: str) -> Quotas:
        """Return what a stack may have: the team's own word goes before the environment's, and that before all's."""
        rules = (self.teams.get(team), self.environments.get(environment))
        found = self.quotas
        for one in reversed(rules):
            if one is not None:
                found = one.quotas.over(found)
        return found
