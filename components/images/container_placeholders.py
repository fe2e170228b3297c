"""Resolves placeholders in the settings of a container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pulumi

from ...runtime.common.errors import ConfigError
from ..placeholders import substitute
from ..tools.base import ContainerImage
from .container_layout import CONFIG, DATA, PORT, PROJECT, SCRATCH, SECRETS

_FIXED = {
    "config": CONFIG,
    "scratch": SCRATCH,
    "project": PROJECT,
    "python": "python",
    "host": "0.0.0.0",  # noqa: S104 - the target decides who reaches the container
    "port": str(PORT),
}


@dataclass(frozen=True)
class ContainerPlaceholders:
    """Resolves all placeholders except those for the value of a secret.

    Secrets are filled in later, on the way into the container: by the provider on docker, by
    `tidemill.runtime.cloud.task_files` on aws.

    Attributes:
        image: the container's image, if it is not one of ours.
        databases: name -> URL of a database, without its password.
    """

    image: ContainerImage | None = None
    databases: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])

    def resolve(self, text: str) -> str:
        """Return `text` with its placeholders resolved; every URL in `databases` must be a plain text.

        Raises:
            ConfigError: a placeholder cannot be resolved in this image.
        """
        return substitute(text, self._value)

    def __call__(self, value: pulumi.Input[str]) -> pulumi.Input[str]:
        """Return `value`, which may be an output, with its placeholders resolved."""
        if isinstance(value, str) and "@{database:" not in value:
            return self.resolve(value)
        known: pulumi.Output[Any] = pulumi.Output.from_input({"text": value, "databases": dict(self.databases)})
        return known.apply(lambda found: replace(self, databases=found["databases"]).resolve(found["text"]))

    def _value(self, kind: str, name: str, placeholder: str) -> str:
        if kind in _FIXED:
            return _FIXED[kind]
        match kind:
            case "secret" | "bcrypt":
                return placeholder
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
                raise ConfigError("cannot be resolved in this image", field="placeholder", value=placeholder)
