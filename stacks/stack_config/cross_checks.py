"""What a stack config may not say although every value in it is well-formed: names which lead nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from ...components.targets.checks import Problem
from ..settings import StackConfig
from .schema_errors import KeyPath, nearest

__all__ = ["placeholders", "problems"]


def problems(config: StackConfig, project: Path, stack: str, secrets: set[str], plain: set[str]) -> Iterator[Problem]:
    """Yield what does not lead anywhere in `config`.

    Args:
        config: the config.
        project: the folder which paths are relative to.
        stack: the name of its file.
        secrets: names of the config values which are encrypted.
        plain: names of those which are not.
    """
    if config.stack != stack:
        path: KeyPath = ("team",) if not stack.startswith(f"{config.team}-") else ("environment",)
        message = f"TEAM-ENVIRONMENT is not the stack's name {stack}"
        yield Problem(path, message, config.stack, "rename the file or hint it")
    yield from _files(config, project)
    yield from _repositories(config)
    yield from _receivers(config, secrets, plain)
    yield from _ports(config)
    yield from config.problems()


def placeholders(value: object, path: KeyPath = ()) -> Iterator[Problem]:
    """Yield what the targets would take for one of their own placeholders, which can stand for secrets."""
    if isinstance(value, dict):
        for key, one in cast("dict[str, Any]", value).items():
            if "@{" in key:
                yield _placeholder((*path, key), key)
            yield from placeholders(one, (*path, key))
    elif isinstance(value, list):
        for index, one in enumerate(cast("list[Any]", value)):
            yield from placeholders(one, (*path, index))
    elif isinstance(value, str) and "@{" in value:
        yield _placeholder(path, value)


def _placeholder(path: KeyPath, text: str) -> Problem:
    return Problem(path, "holds `@{`, which begins what a target replaces", text[:200], "write it without")


def _files(config: StackConfig, project: Path) -> Iterator[Problem]:
    here = "paths are relative to Pulumi.yaml"
    for name, repository in config.lake.repositories.items():
        if repository.gate and not (project / repository.gate).is_file():
            yield Problem(("lake", "repositories", name, "gate"), "no such file", repository.gate, here)
    for name, model in config.models.items():
        if not (project / model.code).is_dir():
            yield Problem(("models", name, "code"), "no such folder", model.code, here)


def _repositories(config: StackConfig) -> Iterator[Problem]:
    known = config.lake.repositories
    for name, model in config.models.items():
        if model.repository not in known:
            close = nearest(model.repository, known)
            hint = f"did you mean {close}?" if close else "add it under lake.repositories"
            message = "names a repository which lake.repositories has not"
            yield Problem(("models", name, "data"), message, model.data, hint)


def _receivers(config: StackConfig, secrets: set[str], plain: set[str]) -> Iterator[Problem]:
    for index, receiver in enumerate(config.monitoring.receivers):
        secret = receiver.url.secret
        if secret not in secrets:
            kind = "slack" if receiver.slack else "webhook"
            message = "is not encrypted" if secret in plain else "names a secret which the config has not"
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
            yield Problem(("ports", name), f"the port of {taken[port]} too", port, "give each service its own")
        taken.setdefault(port, name)
