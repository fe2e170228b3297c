"""Rules of the policy pack, and the resources and findings they work with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, cast

Level = Literal["mandatory", "advisory", "disabled"]


class Unknown:
    """A value that is unknown until other resources are created; rules ignore it."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = Unknown()


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A resource as the program declares it.

    Attributes:
        type: its type token, such as `aws:s3/bucket:Bucket`.
        name: its name in the program.
        urn: the engine's name of it.
        properties: its inputs; values may be UNKNOWN at every level.
        secrets: paths of the values that are marked as secret, such as `envs[2]`.
        defaults: tags that its provider adds to every resource.
        refers: property -> URNs of the resources it was computed from.
    """

    type: str
    name: str
    urn: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict[str, Any])
    secrets: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])
    refers: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])

    def get(self, path: str, default: Any = None) -> Any:
        """Return the property at `path`, names joined by dots; UNKNOWN if a part of the path is unknown.

        >>> Resource(type="t", name="n", properties={"a": {"b": 1}}).get("a.b")
        1
        """
        value: Any = self.properties
        for key in path.split("."):
            if value is UNKNOWN:
                return UNKNOWN
            if not isinstance(value, Mapping):
                return default
            value = cast("Mapping[str, Any]", value).get(key)
        return default if value is None else value

    def lacks(self, path: str, *wanted: Any) -> bool:
        """Return True if the property's value is known and is not in `wanted`."""
        value = self.get(path)
        return value is not UNKNOWN and value not in wanted

    def holds_secret(self, path: str) -> bool:
        """Return whether the value at `path`, a part of it, or a value around it is marked as secret."""
        return any(
            found == path or found.startswith((f"{path}.", f"{path}[")) or path.startswith((f"{found}.", f"{found}["))
            for found in self.secrets
        )

    def tags(self) -> Mapping[str, Any] | Unknown:
        """Return its tags, including those of its provider."""
        own = self.get("tags", {})
        return own if isinstance(own, Unknown) else {**self.defaults, **cast("Mapping[str, Any]", own)}


@dataclass(frozen=True)
class Finding:
    """A violation of a rule.

    Attributes:
        field: the property.
        problem: what is wrong with it; starts with a verb.
        hint: how to fix it.
        resource: the resource, if the rule checks the whole stack.
    """

    field: str
    problem: str
    hint: str
    resource: Resource | None = None

    def text(self, resource: Resource) -> str:
        """Return the finding as one line."""
        return f"{resource.type} {resource.name}: {self.field} {self.problem}; {self.hint}"


@dataclass(frozen=True)
class RuleContext:
    """The stack and the settings for which a rule is checked.

    Attributes:
        production: whether the stack is a production stack.
        settings: parameters of the rule.
    """

    production: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Parameter:
    """A parameter of a rule, with its JSON schema."""

    description: str
    schema: Mapping[str, Any]
    default: Any


Check = Callable[[Resource, RuleContext], Iterable[Finding]]
StackCheck = Callable[[Sequence[Resource], RuleContext], Iterable[Finding]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule; it has either `check_resource` or `check_stack`.

    Attributes:
        name: its name in settings.
        title: what it requires, one sentence without a full stop.
        level: `mandatory` refuses the whole run, `advisory` only warns.
        check_resource: checks one resource at a time.
        check_stack: checks all resources of the stack together.
        parameters: its parameters by name.
    """

    name: str
    title: str
    level: Level = "mandatory"
    check_resource: Check | None = None
    check_stack: StackCheck | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict[str, Parameter])

    def findings(self, resource: Resource, context: RuleContext) -> Iterator[Finding]:
        """Yield the violations of one resource, unless it is an exception."""
        if self.check_resource and not _excepted(resource, context):
            yield from self.check_resource(resource, self._with_defaults(context))

    def stack_findings(self, resources: Sequence[Resource], context: RuleContext) -> Iterator[Finding]:
        """Yield the violations of all resources together, without exceptions."""
        if self.check_stack:
            for finding in self.check_stack(resources, self._with_defaults(context)):
                if finding.resource is None or not _excepted(finding.resource, context):
                    yield finding

    def _with_defaults(self, context: RuleContext) -> RuleContext:
        defaults = {name: parameter.default for name, parameter in self.parameters.items()}
        return RuleContext(context.production, {**defaults, **context.settings})


def _excepted(resource: Resource, context: RuleContext) -> bool:
    return any(fnmatchcase(resource.name, pattern) for pattern in context.settings.get("except") or {})


def items(value: Any) -> list[Any]:
    """Return the known items of a list; a single value becomes a list of one item, None an empty list.

    >>> items("a"), items(None), items(["a", UNKNOWN])
    (['a'], [], ['a'])
    """
    found: list[Any] = list(cast("Sequence[Any]", value)) if isinstance(value, list | tuple) else [value]
    return [item for item in found if item is not None and item is not UNKNOWN]


def as_document(value: Any) -> dict[str, Any] | list[Any] | None:
    """Return the JSON of a property that is a text or an object; None if it is unknown or not JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return cast("dict[str, Any] | list[Any]", value) if isinstance(value, dict | list) else None
