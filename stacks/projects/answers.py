"""The answers from which a project is generated.

    Answers.of({"project": "harbour", "team": "harbour", "environments": ["dev", "prod"], "models": ["berths"]})

Names follow the patterns of the stack config. The project stores its answers, so that later versions of the template
can be rendered for it.
"""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import Field, ValidationError, field_validator

from ...components.settings import NAME_PATTERN
from ...components.targets.block import TargetBlock
from ...components.targets.registry import DEFAULT_TARGET, TARGETS, TargetName, with_optional_blocks
from ...runtime.common.errors import ConfigError
from ...runtime.common.settings import Settings
from ..loading import nearest
from ..settings import StackConfig

BLOCKS = tuple(name for name, spec in TARGETS.items() if spec.questions)
"""Targets whose blocks are among the answers."""

PYTHON_VERSIONS = ("3.11", "3.12", "3.13")
"""The Python versions that a project can use."""

# The engine would pass the config of a project with such a name to the provider of that name.
_RESERVED = frozenset({"pulumi", "tidemill", "tidemill-native"}.union(*(spec.plugins for spec in TARGETS.values())))

_Environment = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*$", max_length=16)]
_Model = Annotated[str, Field(pattern=NAME_PATTERN, max_length=40)]
_Repository = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{2,62}$")]


class _Questions(Settings):
    """The answers before the targets' blocks."""

    team: str = Field(pattern=NAME_PATTERN, min_length=3, max_length=30, description="Name of the team.")
    project: str = Field(pattern=NAME_PATTERN, min_length=3, max_length=50, description="Name of the project.")
    owner: str = Field(min_length=1, max_length=200, description="Address of the owner of the models.")
    environments: list[_Environment] = Field(
        min_length=1, max_length=20, description="Names of the environments, such as dev and prod; each is a stack."
    )
    target: TargetName = Field(default=DEFAULT_TARGET, description="Where the stacks run.")
    models: list[_Model] = Field(min_length=1, max_length=50, description="Names of the models.")
    repositories: list[_Repository] = Field(
        min_length=1, max_length=50, description="Names of the data repositories; the models read the first one."
    )
    python: Literal["3.11", "3.12", "3.13"] = Field(default="3.11", description="Version of Python.")

    @field_validator("project")
    @classmethod
    def _not_reserved(cls, value: str) -> str:
        if value in _RESERVED:
            raise ValueError("is reserved: the engine has a package of that name; choose another name")
        return value

    @field_validator("environments", "models", "repositories")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        twice = next((name for name in value if value.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"contains {twice} twice; remove one")
        return value

    @field_validator("owner")
    @classmethod
    def _visible(cls, value: str) -> str:
        if not value.isprintable() or not value.strip():
            raise ValueError("contains invisible characters; write an address, such as ops@example.org")
        return value


class Answers(with_optional_blocks(_Questions)):
    """The answers of a team, with the block of each target that needs one, under the target's name."""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Answers:
        """Return the answers in `raw`; project and repository default to the team's name.

        Raises:
            ConfigError: an answer is invalid; names the answer, its value and a fix.
        """
        given = dict(raw)
        team = given.get("team")
        if isinstance(team, str):
            given = {"project": team, "repositories": [team], "owner": f"{team}@example.org", **given}
        try:
            made = cls.model_validate(given, strict=True)
        except ValidationError as error:
            raise _explain(error) from None
        made.check()
        return made

    def check(self) -> None:
        """Check the target's settings.

        Raises:
            ConfigError: a setting is invalid; names the answer.
        """
        model = TARGETS[self.target].block
        block = getattr(self, self.target, None) or (model or TargetBlock)()
        services = [f"serving-{name}" for name in self.models]
        for problem in block.problems([*StackConfig(team=self.team, environment="dev").services, *services]):
            raise ConfigError(
                problem.message, field=".".join(map(str, problem.path)), value=problem.value, hint=problem.hint
            )

    def with_(self, **changes: Any) -> Answers:
        """Return a copy of the answers with `changes`.

        Raises:
            ConfigError: the result is invalid.
        """
        return Answers.of({**self.to_mapping(), **changes})

    def to_mapping(self) -> dict[str, Any]:
        """Return the input of `of`, in plain types and a fixed order."""
        return {
            **self.model_dump(mode="json", exclude=set(BLOCKS)),
            **{
                name: block.model_dump(mode="json", exclude_unset=True)
                for name in BLOCKS
                if (block := cast("TargetBlock | None", getattr(self, name)))
            },
        }


def module_of(model: str) -> str:
    """Return the name of the Python package of `model`.

    >>> module_of("late-flights"), module_of("class")
    ('late_flights', 'class_')
    """
    name = model.replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) else name


def _explain(error: ValidationError) -> ConfigError:
    """Return the first problem as an error; unknown answers come first, since a typo causes a missing answer too."""
    problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")
    first = problems[0]
    path, kind = first["loc"], first["type"]
    value: Any = first.get("input")
    context = first.get("ctx", {})
    message, hint = first["msg"][:1].lower() + first["msg"][1:], None
    known = list(Answers.model_fields)
    described = Answers.model_fields[str(path[0])].description if path and path[0] in known else None
    if kind == "missing":
        message, value, hint = "is missing", None, f"add it: {described}" if described else "add it"
    elif kind == "extra_forbidden":
        close = nearest(str(path[-1]), known)
        message, value = "unknown answer", None
        hint = f"did you mean {close}?" if close and len(path) == 1 else f"use some of {', '.join(known)}"
    elif kind == "literal_error":
        message, hint = "unknown value", f"use {str(context['expected']).replace(chr(39), '')}"
    elif kind == "value_error":
        message, _, hint = str(context["error"]).partition("; ")
    elif kind == "string_pattern_mismatch":
        message = f"does not match {context['pattern']}"
        hint = "use lowercase letters, digits and single dashes; start with a letter"
        if path and path[0] == "environments":
            hint = "use lowercase letters and digits; start with a letter"
    if isinstance(value, str) and len(value) > 200:
        value = value[:200] + "..."
    return ConfigError(message, field=".".join(map(str, path)) or "answers", value=value, hint=hint)
