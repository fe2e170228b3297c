"""The block `policies:` of a stack config. Does not import Pulumi."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ...runtime.common.settings import Settings
from ..targets.checks import Problem
from .rules import RULES


class PolicyRule(Settings):
    """Settings of one rule."""

    level: Literal["mandatory", "advisory", "disabled"] | None = Field(
        default=None, description="`mandatory` refuses the run, `advisory` only warns, `disabled` skips the rule."
    )
    excepted: dict[str, Annotated[str, Field(min_length=10)]] = Field(
        default_factory=dict[str, str],
        alias="except",
        description="Name of a resource, or a pattern -> reason of the exception, one sentence.",
    )
    parameters: dict[str, Any] = Field(default_factory=dict[str, Any], description="Parameter of the rule -> value.")

    @model_validator(mode="before")
    @classmethod
    def _only_level(cls, data: Any) -> Any:
        """Accept a level alone."""
        return {"level": data} if isinstance(data, str) else data


def policy_problems(rules: dict[str, PolicyRule]) -> Iterator[Problem]:
    """Yield the settings of rules or parameters that do not exist."""
    known = {rule.name: rule.parameters for rule in RULES}
    for name, settings in rules.items():
        if name not in known:
            yield Problem(("policies", name), "no such rule", name, _nearest(name, list(known)))
            continue
        for parameter in settings.parameters:
            if parameter not in known[name]:
                hint = _nearest(parameter, list(known[name]))
                yield Problem(("policies", name, "parameters", parameter), "no such parameter", parameter, hint)


def _nearest(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else f"`tidemill policies` lists {'them' if known else 'the rules'}"
