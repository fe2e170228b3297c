"""The rules across teams: the optional `teams.yaml` next to the stack configs. Imports no Pulumi.

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


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression ({error}); see Python's `re`") from None
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]


class NameRules(Settings):
    """Patterns that a complete name must match, in addition to the rules of tidemill."""

    team: Pattern | None = Field(default=None, description="Names of teams.", examples=["[a-z]+"])
    model: Pattern | None = Field(default=None, description="Names of models.", examples=["[a-z]+(-[a-z]+)?"])
    repository: Pattern | None = Field(default=None, description="Names of repositories.", examples=["[a-z-]+"])
    owner: Pattern | None = Field(default=None, description="Owners of models.", examples=[r".+@example\.org"])
    domain: Pattern | None = Field(
        default=None, description="Domains of stacks on aws.", examples=[r".+\.ml\.example\.org"]
    )


class Quotas(Settings):
    """Limits of one stack."""

    models: int | None = Field(default=None, ge=0, description="Models of one stack.", examples=[5])
    repositories: int | None = Field(default=None, ge=0, description="Repositories of one stack.", examples=[10])
    workers: int | None = Field(
        default=None, ge=0, description="Serving processes of one stack: the sum of serve.workers.",
        examples=[16],
    )  # fmt: skip
    stacks: int | None = Field(default=None, ge=0, description="Stacks of one team.", examples=[3])

    def over(self, other: Quotas) -> Quotas:
        """Return these quotas, completed with those of `other`."""
        own = self.model_dump(exclude_none=True)
        return Quotas.model_validate({**other.model_dump(exclude_none=True), **own})


class EnvironmentRules(Settings):
    """Rules for the stacks of one environment."""

    targets: list[TargetName] | None = Field(
        default=None, min_length=1, description="Allowed targets. Default: all.", examples=[["local", "docker"]]
    )
    quotas: Quotas = Field(default=Quotas(), description="Quotas of each stack.")


class PortRange(Settings):
    """A range of ports."""

    first: Port = Field(description="First port.", examples=[21000])
    last: Port = Field(description="Last port.", examples=[21099])

    @model_validator(mode="after")
    def _in_order(self) -> PortRange:
        if self.last < self.first:
            raise ValueError("last is less than first; swap them")
        return self


class TeamRules(Settings):
    """Rules for one team."""

    environments: list[str] | None = Field(
        default=None, description="Allowed environments. Default: all.", examples=[["dev", "prod"]]
    )
    ports: PortRange | None = Field(default=None, description="Range of its fixed ports.")
    quotas: Quotas = Field(default=Quotas(), description="Quotas of each of its stacks; they override all others.")


class TeamsRules(Settings):
    """Rules for all stacks of the project."""

    names: NameRules = Field(default=NameRules(), description="Patterns for names.")
    quotas: Quotas = Field(default=Quotas(), description="Default quotas of each stack.")
    environments: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*$")], EnvironmentRules] = Field(
        default_factory=dict[str, EnvironmentRules],
        description="Environment -> its rules. If given, no other environments are allowed.",
        examples=[{"dev": {"targets": ["local", "docker"]}, "prod": {"targets": ["aws"]}}],
    )
    teams: dict[Annotated[str, Field(pattern=NAME_PATTERN)], TeamRules] = Field(
        default_factory=dict[str, TeamRules],
        description="Team -> its rules. If given, no other teams are allowed; `{}` allows a team without rules.",
        examples=[{"flights": {"quotas": {"models": 20}}, "harbour": {}}],
    )
    one_host: bool = Field(
        default=True,
        description="Whether stacks on local and docker share one machine, so that fixed ports must differ. Set "
        "`false` if each stack has its own machine.",
    )

    def quotas_of(self, team: str, environment: str) -> Quotas:
        """Return the quotas of a stack: those of the team override those of the environment and the defaults."""
        rules = (self.teams.get(team), self.environments.get(environment))
        found = self.quotas
        for rule in reversed(rules):
            if rule is not None:
                found = rule.quotas.over(found)
        return found
