"""Checks a stack config beyond its schema: names and paths must exist, ports must not clash."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from ...components.targets.checks import Problem
from ...runtime.common.errors import ConfigError, NotFoundError
from ...runtime.common.verdicts import is_below
from ...runtime.validation import SuiteFile
from ..settings import StackConfig
from .schema_errors import KeyPath, nearest


def cross_check(
    config: StackConfig, project: Path, stack: str, secrets: set[str], plain: set[str]
) -> Iterator[Problem]:
    """Yield the problems of `config` that its schema cannot express.

    Args:
        config: the config.
        project: the folder that paths are relative to.
        stack: the stack name in the file name.
        secrets: names of the encrypted config values.
        plain: names of the other config values.
    """
    if config.stack != stack:
        path: KeyPath = ("team",) if not stack.startswith(f"{config.team}-") else ("environment",)
        message = f"TEAM-ENVIRONMENT is not the stack's name {stack}"
        yield Problem(path, message, config.stack, "rename the file, or correct the name")
    yield from _files(config, project)
    yield from _repositories(config)
    yield from _suites(config, project)
    yield from _receivers(config, secrets, plain)
    yield from _ports(config)
    yield from config.problems()


def find_placeholders(value: object, path: KeyPath = ()) -> Iterator[Problem]:
    """Yield texts that look like a placeholder of a target; placeholders can insert secrets."""
    if isinstance(value, dict):
        for key, child in cast("dict[str, Any]", value).items():
            if "@{" in key:
                yield _placeholder_problem((*path, key), key)
            yield from find_placeholders(child, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(cast("list[Any]", value)):
            yield from find_placeholders(item, (*path, index))
    elif isinstance(value, str) and "@{" in value:
        yield _placeholder_problem(path, value)


def _placeholder_problem(path: KeyPath, text: str) -> Problem:
    return Problem(path, "contains `@{`, which starts a placeholder", text[:200], "remove it")


def _files(config: StackConfig, project: Path) -> Iterator[Problem]:
    hint = "paths are relative to Pulumi.yaml"
    for name, repository in config.lake.repositories.items():
        if repository.gate and not (project / repository.gate).is_file():
            yield Problem(("lake", "repositories", name, "gate"), "no such file", repository.gate, hint)
    for name, model in config.models.items():
        if not (project / model.code).is_dir():
            yield Problem(("models", name, "code"), "no such folder", model.code, hint)


def _repositories(config: StackConfig) -> Iterator[Problem]:
    known = config.lake.repositories
    for name, model in config.models.items():
        if model.repository not in known:
            close = nearest(model.repository, known)
            hint = f"did you mean {close}?" if close else "add it under lake.repositories"
            message = "no such repository in lake.repositories"
            yield Problem(("models", name, "data"), message, model.data, hint)


def _suites(config: StackConfig, project: Path) -> Iterator[Problem]:
    for name, repository in config.lake.repositories.items():
        if not repository.gate or not (project / repository.gate).is_file():
            continue
        path: KeyPath = ("lake", "repositories", name, "gate")
        try:
            folder = SuiteFile.read(project / repository.gate).path
        except (ConfigError, NotFoundError) as error:
            yield Problem(path, error.message, repository.gate, error.hint or "correct the file")
            continue
        for model, settings in config.models.items():
            data = settings.data.strip("/").split("/", 2)
            if data[0] == name and not is_below("/".join(data[2:]), folder):
                message = f"is outside the folder {folder} that the gate judges, so trainings refuse it"
                hint = f"use data below it, or change meta.tidemill.path in {repository.gate}"
                yield Problem(("models", model, "data"), message, settings.data, hint)


def _receivers(config: StackConfig, secrets: set[str], plain: set[str]) -> Iterator[Problem]:
    for index, receiver in enumerate(config.monitoring.receivers):
        secret = receiver.url.secret
        if secret not in secrets:
            kind = "slack" if receiver.slack else "webhook"
            message = "is not encrypted" if secret in plain else "no such secret in the config"
            path = ("monitoring", "receivers", index, kind, "url", "secret")
            yield Problem(path, message, secret, f"run `pulumi config set --secret {secret}`")


def _ports(config: StackConfig) -> Iterator[Problem]:
    services = config.services
    taken: dict[int, str] = {}
    for name, port in config.ports.items():
        if name not in services:
            close = nearest(name, services)
            hint = f"did you mean {close}?" if close else f"use one of {', '.join(services)}"
            yield Problem(("ports", name), "no such service", name, hint)
        if port in taken:
            yield Problem(("ports", name), f"also the port of {taken[port]}", port, "give each service its own")
        taken.setdefault(port, name)
