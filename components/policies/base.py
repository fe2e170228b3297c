"""What a rule sees, says, and is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, cast

__all__ = [
    "UNKNOWN",
    "Finding",
    "Level",
    "Parameter",
    "Resource",
    "Rule",
    "Situation",
    "StackCheck",
    "Unknown",
    "as_document",
    "items",
]

Level = Literal["mandatory", "advisory", "disabled"]


class Unknown:
    """A value which is not known before the resources it depends on are made; no rule judges it."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = Unknown()


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A resource as the program wants it.

    Attributes:
        type: its type, `aws:s3/bucket:Bucket`.
        name: its name in the program.
        urn: what the engine calls it.
        properties: what it is given; values may be UNKNOWN at every level.
        secrets: paths of those values which are marked as secret, `envs[2]`.
        defaults: tags which its provider puts on everything.
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
        """Return the property at `path`, names joined by dots; UNKNOWN where a part of the path is not known.

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

    def lacks(self, path: str, *right: Any) -> bool:
        """Say whether the property is known, and is none of `right`."""
        value = self.get(path)
        return value is not UNKNOWN and value not in right

    def holds_secret(self, path: str) -> bool:
        """Say whether the value at `path`, something in it, or what it is in, is marked as secret."""
        return any(
            found == path or found.startswith((f"{path}.", f"{path}[")) or path.startswith((f"{found}.", f"{found}["))
            for found in self.secrets
        )

    def tags(self) -> Mapping[str, Any] | Unknown:
        """Return the tags it will bear, those of its provider included."""
        own = self.get("tags", {})
        return own if isinstance(own, Unknown) else {**self.defaults, **cast("Mapping[str, Any]", own)}


@dataclass(frozen=True)
class Finding:
    """What a rule has against a resource.

    Attributes:
        field: the property.
        problem: what is wrong with it, a verb first.
        hint: what to do.
        of: the resource, where a rule has looked at all of them.
    """

    field: str
    problem: str
    hint: str
    of: Resource | None = None

    def text(self, resource: Resource) -> str:
        """Return the finding as one line."""
        return f"{resource.type} {resource.name}: {self.field} {self.problem}; {self.hint}"


@dataclass(frozen=True)
class Situation:
    """What a rule is asked in.

    Attributes:
        production: whether the stack is one of production.
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


Check = Callable[[Resource, Situation], Iterable[Finding]]
StackCheck = Callable[[Sequence[Resource], Situation], Iterable[Finding]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule.

    Attributes:
        name: what it is called in settings.
        title: what it asks, one sentence without a full stop.
        level: `mandatory` refuses the whole run, `advisory` only says so.
        each: asks one resource at a time.
        whole: asks all resources of the stack together.
        parameters: what can be set of it.
    """

    name: str
    title: str
    level: Level = "mandatory"
    each: Check | None = None
    whole: StackCheck | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict[str, Parameter])

    def ask(self, resource: Resource, situation: Situation) -> Iterator[Finding]:
        """Yield what it has against `resource`, unless that is excepted."""
        if self.each and not _excepted(resource, situation):
            yield from self.each(resource, self._filled(situation))

    def ask_all(self, resources: Sequence[Resource], situation: Situation) -> Iterator[Finding]:
        """Yield what it has against each of `resources` when they are seen together."""
        if self.whole:
            for finding in self.whole(resources, self._filled(situation)):
                if finding.of is None or not _excepted(finding.of, situation):
                    yield finding

    def _filled(self, situation: Situation) -> Situation:
        defaults = {name: parameter.default for name, parameter in self.parameters.items()}
        return Situation(situation.production, {**defaults, **situation.settings})


def _excepted(resource: Resource, situation: Situation) -> bool:
    return any(fnmatchcase(resource.name, pattern) for pattern in situation.settings.get("except") or {})


def items(value: Any) -> list[Any]:
    """Return `value` as a list: a list itself, what stands alone as its only item, nothing as none.

    >>> items("a"), items(None), items(["a", UNKNOWN])
    (['a'], [], ['a'])
    """
    found: list[Any] = list(cast("Sequence[Any]", value)) if isinstance(value, list | tuple) else [value]
    return [item for item in found if item is not None and item is not UNKNOWN]


def as_document(value: Any) -> dict[str, Any] | list[Any] | None:
    """Return the JSON which a property holds as text or as an object; None where it is not known or none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return cast("dict[str, Any] | list[Any]", value) if isinstance(value, dict | list) else None
