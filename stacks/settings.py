"""The stack config: one object, `tidemill:stack`, composed of the settings of each section's owner.

    config:
      tidemill:stack:
        team: flights
        environment: dev

creates a platform with one repository and no model. `tidemill.stacks.loading` reads the file.
This module imports no Pulumi.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field, model_validator

from ..components.policies.settings import PolicyRule, policy_problems
from ..components.settings import NAME_PATTERN, LakeConfig, ModelConfig, MonitoringConfig, Port
from ..components.targets.block import TargetBlock
from ..components.targets.checks import Problem
from ..components.targets.registry import DEFAULT_TARGET, TARGETS, TargetName, with_blocks
from ..components.targets.spec import TargetContext, TargetSpec
from ..runtime.common.settings import Settings

_SERVICES = ("lakefs", "mlflow", "validation", "monitor", "retraining", "prometheus", "alertmanager", "grafana")


class _Sections(Settings):
    """The sections before the targets' blocks."""

    team: str = Field(
        pattern=NAME_PATTERN, min_length=3, max_length=30, description="Name of the team.", examples=["flights"]
    )
    environment: str = Field(
        pattern=r"^[a-z][a-z0-9]*$",
        max_length=16,
        description="Name of the environment.",
        examples=["dev", "staging", "prod"],
    )
    target: TargetName = Field(default=DEFAULT_TARGET, description="Where the platform runs.")
    lake: LakeConfig = Field(default_factory=LakeConfig, description="Versioned data.")
    models: dict[Annotated[str, Field(pattern=NAME_PATTERN, max_length=40)], ModelConfig] = Field(
        default_factory=dict[str, ModelConfig], description="Name -> model."
    )
    monitoring: MonitoringConfig = Field(default=MonitoringConfig(), description="Metrics, alerts, dashboards.")
    ports: dict[str, Port] = Field(
        default_factory=dict[str, int],
        description="Service name -> fixed port on this machine. Other services get a free port and keep it. "
        "Ignored on aws, where each service has its own name.",
        examples=[{"grafana": 3000}],
    )


class StackConfig(with_blocks(_Sections)):
    """One team in one environment, with its own platform.

    The block of each target follows the sections, under the target's name.
    """

    policies: dict[str, PolicyRule] = Field(
        default_factory=dict[str, PolicyRule],
        description="Rule of the policy pack -> its settings, or only its level; `tidemill policies` lists the rules.",
    )

    @property
    def stack(self) -> str:
        """The stack's name, TEAM-ENVIRONMENT."""
        return f"{self.team}-{self.environment}"

    @property
    def services(self) -> list[str]:
        """Names of all services that the stack can have on any target."""
        return [*_SERVICES, *(f"serving-{name}" for name in self.models)]

    @property
    def spec(self) -> TargetSpec:
        """The target on which the stack runs."""
        return TARGETS[self.target]

    @property
    def block(self) -> TargetBlock:
        """The target's block; of a target without settings, an empty one."""
        return cast("TargetBlock", getattr(self, self.target)) if self.spec.block else TargetBlock()

    def on_target(self, project: Path, expiring: Mapping[str, int] | None = None) -> TargetContext:
        """Return what the target's code needs to know about this stack of `project`; see `TargetContext`."""
        return TargetContext(self.team, self.environment, project, self.block, expiring or {})

    def problems(self) -> Iterator[Problem]:
        """Yield the problems of the settings of the target in use and of the policies."""
        yield from policy_problems(self.policies)
        yield from self.block.problems(self.services)

    def notes(self) -> Iterator[Problem]:
        """Yield the settings that the target ignores; they may stay for another target."""
        for name in () if self.spec.host_ports else self.ports:
            yield Problem(
                ("ports", name),
                f"has no effect on the target {self.target}",
                self.ports[name],
                "keep it for another target, or remove it",
            )

    @model_validator(mode="before")
    @classmethod
    def _team_repository(cls, data: Any) -> Any:
        """Add a repository with the team's name if the config has none."""
        if not isinstance(data, dict):
            return data
        raw = cast("dict[str, Any]", data)
        lake: Any = raw.get("lake", {})
        team = raw.get("team")
        if isinstance(team, str) and isinstance(lake, dict) and "repositories" not in lake:
            return {**raw, "lake": {**cast("dict[str, Any]", lake), "repositories": {team: {}}}}
        return raw
