"""The rules as a policy pack of Pulumi.

The pack also reads their settings in the stack config, so a plain `pulumi preview --policy-pack` checks the same as
`tidemill preview --policy`. A file given as `--policy-pack-config` overrides the stack config.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import psutil
import pulumi_policy as policy
from pulumi_policy import policy as sdk
from pulumi_policy.proxy import UnknownValueError

from ...components.layout import find_project
from ...components.policies.base import UNKNOWN, Resource, Rule, RuleContext
from ...components.policies.rules import RULES
from ...components.policies.rules import rule as rule_of
from ...components.policies.settings import PolicyRule
from ...components.provider.parent import end_with_parent
from ...components.targets.block import PRODUCTION
from ...runtime.common.errors import TidemillError
from ..loading import load_stack

NAME = "tidemill"
_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - a mark of the wire format
_MARK = "tidemill:secret"
_READER = "deserialize_properties"
_LEVELS = {
    "mandatory": policy.EnforcementLevel.MANDATORY,
    "advisory": policy.EnforcementLevel.ADVISORY,
    "disabled": policy.EnforcementLevel.DISABLED,
}
_EXCEPT: dict[str, Any] = {
    "type": "object",
    "description": "Name of a resource, or a pattern -> reason of the exception.",
    "additionalProperties": {"type": "string", "minLength": 10},
}


@dataclass(frozen=True)
class StackValues:
    """The stack's values that the pack needs.

    Attributes:
        production: whether it is a production stack.
        rules: rule -> its settings in the stack config.
    """

    production: bool = False
    rules: Mapping[str, PolicyRule] = field(default_factory=dict[str, PolicyRule])

    @classmethod
    def of(cls, environ: Mapping[str, str], engine: Path) -> StackValues:
        """Return the values of the engine's current stack.

        Args:
            environ: the environment that the engine sets.
            engine: the working directory of the engine, at or below the project.

        Raises:
            TidemillError: the stack config is invalid.
        """
        stack = environ.get("PULUMI_STACK", "")
        if "tidemill:stack" not in json.loads(environ.get("PULUMI_CONFIG") or "{}"):
            return cls(stack.rpartition("-")[2] in PRODUCTION)  # another program than tidemill's
        # The config in the engine's environment lacks the base config that it extends.
        config = load_stack(find_project(engine), stack).config
        return cls(config.block.is_production(config.environment), config.policies)

    def settings(self) -> dict[str, Any]:
        """Return the settings of the rules in the engine's form."""
        found: dict[str, Any] = {}
        for name, rule in self.rules.items():
            # A missing level means `advisory` on the wire, not the rule's own level.
            level = rule.level or rule_of(name).level
            excepted = {"except": rule.excepted} if rule.excepted else {}
            found[name] = {"enforcementLevel": _LEVELS[level], **excepted, **rule.parameters}
        return found


def mark_secrets(original: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Wrap `original`, which reads properties off the wire, so that it keeps the marks on secrets."""

    def marking(properties: dict[str, Any], proxy_secrets: bool = False) -> dict[str, Any]:
        return original(properties if proxy_secrets else _marked(properties), proxy_secrets)

    return marking


def _marked(value: Any) -> Any:
    if isinstance(value, list):
        return [_marked(item) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    found = cast("dict[str, Any]", value)
    if found.get(_SIGNATURE) == _SECRET:
        return {_MARK: _marked(found.get("value"))}
    return {key: item if key == _SIGNATURE else _marked(item) for key, item in found.items()}


def resource_of(
    given: policy.ResourceValidationArgs | policy.PolicyResource, refers: Mapping[str, frozenset[str]] | None = None
) -> Resource:
    """Return a resource of the engine in the rules' form."""
    secrets: set[str] = set()
    properties = {key: _plain(given.props, key, key, secrets) for key in given.props}
    return Resource(
        type=given.resource_type,
        name=given.name,
        urn=given.urn,
        properties=properties,
        secrets=frozenset(secrets),
        defaults=_default_tags(given.provider),
        refers=refers or {},
    )


def _refers(given: policy.PolicyResource) -> dict[str, frozenset[str]]:
    return {key: frozenset(other.urn for other in others) for key, others in given.property_dependencies.items()}


def _plain(holder: Any, key: str | int, path: str, secrets: set[str]) -> Any:
    try:
        value: Any = holder[key]
    except UnknownValueError:
        return UNKNOWN
    if isinstance(value, Mapping):
        found = cast("Mapping[str, Any]", value)
        if set(found) == {_MARK}:
            secrets.add(path)
            return _plain(found, _MARK, path, secrets)
        return {name: _plain(found, name, f"{path}.{name}", secrets) for name in found}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        found_list = cast("Sequence[Any]", value)
        return [_plain(found_list, index, f"{path}[{index}]", secrets) for index in range(len(found_list))]
    return value


def _default_tags(provider: policy.PolicyProviderResource | None) -> dict[str, Any]:
    """Return the tags that a provider adds to every resource; its complex properties are JSON texts."""
    if provider is None or "defaultTags" not in provider.props:
        return {}
    found = _plain(provider.props, "defaultTags", "defaultTags", set())
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError:
            return {}
    tags: Any = cast("dict[str, Any]", found).get("tags") if isinstance(found, dict) else None
    return cast("dict[str, Any]", tags) if isinstance(tags, dict) else {}


def policies_of(values: StackValues, rules: Sequence[Rule] = RULES) -> list[policy.Policy]:
    """Return the rules as policies of Pulumi."""
    return [_resource_policy(rule, values) if rule.check_resource else _stack_policy(rule, values) for rule in rules]


def _common(rule: Rule) -> dict[str, Any]:
    parameters = {name: {**one.schema, "description": one.description} for name, one in rule.parameters.items()}
    return {
        "name": rule.name,
        "description": rule.title,
        "enforcement_level": _LEVELS[rule.level],
        "config_schema": policy.PolicyConfigSchema({"except": _EXCEPT, **parameters}),
    }


def _resource_policy(rule: Rule, values: StackValues) -> policy.Policy:
    def validate(given: policy.ResourceValidationArgs, report: policy.ReportViolation) -> None:
        resource = resource_of(given)
        for finding in rule.findings(resource, RuleContext(values.production, given.get_config())):
            report(finding.text(resource), None)

    return policy.ResourceValidationPolicy(validate=validate, **_common(rule))


def _stack_policy(rule: Rule, values: StackValues) -> policy.Policy:
    def validate(given: policy.StackValidationArgs, report: policy.ReportViolation) -> None:
        resources = [resource_of(one, _refers(one)) for one in given.resources]
        for finding in rule.stack_findings(resources, RuleContext(values.production, given.get_config())):
            resource = finding.resource
            text = finding.text(resource) if resource else f"{finding.field} {finding.problem}; {finding.hint}"
            report(text, resource and resource.urn)

    return policy.StackValidationPolicy(validate=validate, **_common(rule))


def main() -> None:
    """Serve the engine until it ends; `pulumi-analyzer-policy-tidemill` runs this."""
    engine = os.getppid()
    end_with_parent(engine)
    # The SDK prints its port without a flush, because the engine's own starter runs Python unbuffered.
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)
    # The engine marks secret values, but the SDK drops the marks before a validation.
    original: Any = getattr(sdk, _READER)  # fails here if another version of the SDK lacks it
    setattr(sdk, _READER, mark_secrets(original))
    try:
        values = StackValues.of(os.environ, Path(psutil.Process(engine).cwd()))
    except TidemillError as error:
        raise SystemExit(f"tidemill: {error}") from None
    policy.PolicyPack(
        NAME, policies_of(values), policy.EnforcementLevel.MANDATORY, initial_config=cast("Any", values.settings())
    )


if __name__ == "__main__":
    main()
