"""Checks the stacks of a project: each alone, each against the rules, and all against each other. Only reads files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ...components.targets.checks import Problem
from ...runtime.common.errors import ConfigError
from ..loading import CheckedStack, LoadedStack, check_stack, config_folder, stack_names
from ..settings import StackConfig
from ..stack_config.findings import Finding, first_error
from ..stack_config.schema_errors import nearest, schema_problems
from ..stack_config.sources import FileCache, located_finding, relative_path
from .rules import TeamsRules

RULES_FILE = "teams.yaml"
"""Name of the file with the rules, in the folder of the stack configs."""

_NAME_PREFIX = "tidemill-"


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        stacks: the stacks, by name.
        rules: whether the project has a file with rules.
        findings: the problems, sorted by file and line.
    """

    stacks: Sequence[CheckedStack]
    rules: bool
    findings: Sequence[Finding]


def check_project(project: Path, only: Iterable[str] | None = None) -> Report:
    """Check the stacks of `project`.

    Args:
        project: the folder of Pulumi.yaml.
        only: the stacks to report; the others are also read, to find conflicts. Default: all.

    Raises:
        NotFoundError: there is no such stack.
        ConfigError: Pulumi.yaml cannot be read.
    """
    files = FileCache(project)
    names = stack_names(project)
    selected = list(only) if only is not None else names
    examined = [check_stack(files, name) for name in sorted({*names, *selected})]
    findings: list[Finding] = []
    rules: TeamsRules | None = None
    try:
        rules = load_rules(files, config_folder(project))
    except ConfigError as error:
        findings.append(Finding.from_error(error))
    findings += [one for found in examined for one in found.findings]
    valid = [(found, found.config) for found in examined if found.config and not found.findings]
    for found, config in valid:
        problems = rule_problems(config, rules) if rules else ()
        findings += _located(found, problems)
    stacks_of: dict[str, list[CheckedStack]] = defaultdict(list)
    for found, config in valid:
        stacks_of[config.team].append(found)
    for team, own in stacks_of.items():
        findings += _stack_quota(team, own, rules) if rules else ()
    findings += _conflicts(valid, one_host=rules is None or rules.one_host)
    shown = [one for one in findings if one.stack is None or one.stack in selected]
    return Report(
        [found for found in examined if found.stack in selected],
        (config_folder(project) / RULES_FILE).is_file(),
        sorted(shown, key=lambda one: (one.file, one.line or 0)),
    )


def load_rules(files: FileCache, folder: Path) -> TeamsRules | None:
    """Return the rules in `folder`, that of the stack configs, or None without such a file.

    Raises:
        ConfigError: the file is invalid.
    """
    file = folder / RULES_FILE
    if not file.is_file():
        return None
    value, positions, keys = files.content(file)
    try:
        return TeamsRules.model_validate({} if value is None else value, strict=True)
    except ValidationError as error:
        problem = next(schema_problems(error, TeamsRules))
        place = next(
            found
            for length in range(len(problem.path), -1, -1)
            if (found := keys.get(problem.path[:length]) or positions.get(problem.path[:length]))
        )
        path = ".".join(map(str, problem.path))
        where = place.text(files.project) + (f": {path}" if path else "")
        raise ConfigError(problem.message, field=where, value=problem.value, hint=problem.hint) from None


def require_rules(loaded: LoadedStack) -> None:
    """Check that a stack keeps the rules of its project; ignore other stacks.

    Raises:
        ConfigError: it does not, or the file with the rules is invalid.
    """
    rules = load_rules(FileCache(loaded.project), loaded.file.parent)
    found = [
        located_finding(problem, loaded.positions.get(problem.path), loaded.file, loaded.project, loaded.config.stack)
        for problem in (rule_problems(loaded.config, rules) if rules else ())
    ]
    if found:
        raise first_error(found)


def rule_problems(config: StackConfig, rules: TeamsRules) -> Iterator[Problem]:
    """Yield each setting of `config` that breaks `rules`."""
    yield from _team_and_environment(config, rules)
    yield from _names(config, rules)
    yield from _quotas(config, rules)
    ports = rules.teams[config.team].ports if config.team in rules.teams else None
    if ports and config.spec.host_ports:
        for service, port in config.ports.items():
            if not ports.first <= port <= ports.last:
                hint = f"use one of {ports.first}-{ports.last}"
                yield Problem(("ports", service), f"is outside the ports of {config.team}", port, hint)


def _team_and_environment(config: StackConfig, rules: TeamsRules) -> Iterator[Problem]:
    if rules.teams and config.team not in rules.teams:
        yield Problem(("team",), f"is not a team in {RULES_FILE}", config.team, _known_names(config.team, rules.teams))
    environments = list(rules.environments)
    own = rules.teams[config.team].environments if config.team in rules.teams else None
    allowed = [name for name in own if not environments or name in environments] if own is not None else environments
    if (environments or own is not None) and config.environment not in allowed:
        hint = _known_names(config.environment, allowed)
        yield Problem(("environment",), f"is not allowed for {config.team}", config.environment, hint)
    environment = rules.environments.get(config.environment)
    targets = environment.targets if environment else None
    if targets is not None and config.target not in targets:
        message = f"is not allowed for {config.environment}"
        yield Problem(("target",), message, config.target, f"use {' or '.join(targets)}")


def _known_names(name: str, known: Iterable[str]) -> str:
    close = nearest(name, known)
    return f"did you mean {close}?" if close else f"use one of {', '.join(known) or 'none'}, or add it to {RULES_FILE}"


def _names(config: StackConfig, rules: TeamsRules) -> Iterator[Problem]:
    names = rules.names
    checks: list[tuple[str | None, tuple[str | int, ...], str]] = [
        (names.team, ("team",), config.team),
        *((names.repository, ("lake", "repositories", name), name) for name in config.lake.repositories),
        *((names.model, ("models", name), name) for name in config.models),
        *((names.owner, ("models", name, "owner"), model.owner) for name, model in config.models.items()),
    ]
    checks += [
        (getattr(names, key), (config.target, key), name) for key, name in config.block.restricted_names().items()
    ]
    for pattern, path, name in checks:
        if pattern is not None and not re.fullmatch(pattern, name):
            yield Problem(path, f"does not match {pattern}, which {RULES_FILE} requires", name, "choose another name")


def _quotas(config: StackConfig, rules: TeamsRules) -> Iterator[Problem]:
    quotas = rules.quotas_of(config.team, config.environment)
    counts: list[tuple[str, tuple[str | int, ...], int | None, int]] = [
        ("models", ("models",), quotas.models, len(config.models)),
        ("repositories", ("lake", "repositories"), quotas.repositories, len(config.lake.repositories)),
        ("workers", ("models",), quotas.workers, sum(model.serve.workers for model in config.models.values())),
    ]
    for what, path, most, count in counts:
        if most is not None and count > most:
            hint = f"remove some, or raise the quota in {RULES_FILE}"
            yield Problem(path, f"{config.team} may have at most {most} {what} in {config.environment}", count, hint)


def _stack_quota(team: str, own: Sequence[CheckedStack], rules: TeamsRules) -> Iterator[Finding]:
    quotas = rules.teams[team].quotas.over(rules.quotas) if team in rules.teams else rules.quotas
    if quotas.stacks is not None and len(own) > quotas.stacks:
        message = f"{team} may have at most {quotas.stacks} stacks"
        for found in own[quotas.stacks :]:
            problem = Problem(("team",), message, len(own), f"remove some, or raise the quota in {RULES_FILE}")
            yield from _located(found, [problem])


def _located(found: CheckedStack, problems: Iterable[Problem]) -> list[Finding]:
    source = found.source
    return [source.finding(problem, found.stack) for problem in problems] if source else []


def _conflicts(stacks: Sequence[tuple[CheckedStack, StackConfig]], *, one_host: bool) -> Iterator[Finding]:
    """Yield each resource that two stacks claim but only one can have."""
    taken: dict[tuple[str, ...], CheckedStack] = {}
    for found, config in stacks:
        for claim, problem in _claims(config, one_host=one_host):
            first = taken.setdefault(claim, found)
            if first is not found:
                where = relative_path(first.file, found.source.project) if found.source else str(first.file)
                message = f"{problem.message} {first.stack} ({where})"
                yield from _located(found, [Problem(problem.path, message, problem.value, problem.hint)])


def _claims(config: StackConfig, *, one_host: bool) -> Iterator[tuple[tuple[str, ...], Problem]]:
    """Yield each exclusive resource of the stack, and the problem if another stack has it."""
    if config.spec.host_ports and one_host:
        for service, port in config.ports.items():
            hint = "give each its own port, or remove it to get a free one"
            yield ("port", str(port)), Problem(("ports", service), "is also the fixed port of", port, hint)
    namespace = config.block.namespace()
    if namespace is None:
        return
    # Stack and service names are joined: two different pairs can produce the same resource name.
    for service in (*config.services, "postgres"):
        name = f"{_NAME_PREFIX}{config.stack}-{service}"
        path = ("models", service.removeprefix("serving-")) if service.startswith("serving-") else ("team",)
        message, hint = f"its service {service} would have the same name as one of", "rename the team or the model"
        yield (config.target, *namespace, "name", name), Problem(path, message, name, hint)
    yield from config.block.exclusive()
