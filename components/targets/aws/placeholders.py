"""Resolves the placeholders of `components.targets.base` for the containers of a task."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pulumi

from ....runtime.common.errors import ConfigError
from ...tools.base import ContainerImage
from .names import CONFIG, DATA, PORT, PROJECT, SCRATCH, SECRETS

__all__ = ["Texts"]

_PLACEHOLDER = re.compile(r"@\{([a-z-]+)(?::([^{}]*))?\}")
_PLAIN = {
    "config": CONFIG,
    "scratch": SCRATCH,
    "project": PROJECT,
    "python": "python",
    "host": "0.0.0.0",  # noqa: S104 - within the task; its security group says who comes in
    "port": str(PORT),
}


@dataclass(frozen=True)
class Texts:
    """Resolves what stands for no secret; the rest is resolved in the task, by `tidemill.runtime.cloud.task_files`.

    Attributes:
        image: what the container is of, where it is none of ours.
        databases: name -> the URL of a database, without its password.
    """

    image: ContainerImage | None = None
    databases: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])

    def __call__(self, value: str) -> str:
        """Return `value` with every placeholder resolved which stands for no secret.

        Raises:
            ConfigError: one cannot be resolved in this image.
        """
        return _PLACEHOLDER.sub(self._one, value)

    def later(self, value: pulumi.Input[str]) -> pulumi.Input[str]:
        """Return the same of a value which, as the databases' URLs, may not be known yet."""
        if isinstance(value, str) and "@{database:" not in value:
            return self(value)
        both: pulumi.Output[Any] = pulumi.Output.from_input({"text": value, "databases": dict(self.databases)})
        return both.apply(lambda known: replace(self, databases=known["databases"])(known["text"]))

    def _one(self, found: re.Match[str]) -> str:
        kind, name = found[1], found[2] or ""
        if kind in _PLAIN:
            return _PLAIN[kind]
        match kind:
            case "secret" | "bcrypt":
                return found[0]
            case "secret-file":
                return f"{SECRETS}/{name}"
            case "store":
                return f"{DATA}/{name}"
            case "database" if name in self.databases:
                return str(self.databases[name])
            case "tool" if self.image and name in self.image.programs:
                return self.image.programs[name]
            case "tool-home" if self.image and name in self.image.homes:
                return self.image.homes[name]
            case _:
                raise ConfigError("cannot be resolved in this image", field="placeholder", value=found[0])
