"""What things are called on the `docker` target, and where they are within a container. Loads no Pulumi."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ....runtime.common.errors import ConfigError
from ...tools.base import ContainerImage

if TYPE_CHECKING:
    import pulumi

__all__ = [
    "CONFIG",
    "DATA",
    "MOUNT",
    "PORT",
    "PROJECT",
    "SCRATCH",
    "SECRETS",
    "TMPFS",
    "USER",
    "Names",
    "Texts",
    "database_role",
    "database_url",
    "entrypoint_of",
    "pass_file",
]

USER = 10001
"""The user of every container but Postgres's; no user of this machine has that number by chance."""

PORT = 8080
"""What every service listens on within its container."""

MOUNT = "/run/tidemill"
CONFIG, SECRETS = f"{MOUNT}/config", f"{MOUNT}/secrets"
DATA, SCRATCH, PROJECT = "/data", "/scratch", "/project"

TMPFS: Mapping[str, str] = {"/tmp": "rw,nosuid,nodev,size=256m,mode=1777"}  # noqa: S108 - the container's own

_PLACEHOLDER = re.compile(r"@\{([a-z-]+)(?::([^{}]*))?\}")
_PLAIN = {
    "config": CONFIG,
    "scratch": SCRATCH,
    "project": PROJECT,
    "python": "python",
    "host": "0.0.0.0",  # noqa: S104 - within the container; what is published is on the loopback interface
    "port": str(PORT),
}


@dataclass(frozen=True)
class Names:
    """Names in Docker, where all stacks of a machine share one space of them."""

    team: str
    environment: str

    @property
    def stack(self) -> str:
        """TEAM-ENVIRONMENT."""
        return f"{self.team}-{self.environment}"

    def of(self, name: str) -> str:
        """Return what the stack's thing `name` is called."""
        return f"tidemill-{self.stack}-{name}"

    def labels(self, **more: str) -> dict[str, str]:
        """Return the labels of everything that is made."""
        return {
            "managed-by": "tidemill",
            "tidemill.stack": self.stack,
            "tidemill.team": self.team,
            "tidemill.environment": self.environment,
            **{f"tidemill.{key}": value for key, value in more.items()},
        }


@dataclass(frozen=True)
class Texts:
    """Resolves the placeholders of `components.targets.base` for one container.

    Those which stand for a secret's value are left as they are: the provider resolves them, on its way into the volume.

    Attributes:
        image: what the container is of, where it is none of ours.
    """

    image: ContainerImage | None = None

    def __call__(self, value: pulumi.Input[str]) -> pulumi.Input[str]:
        """Return `value` with every placeholder resolved which stands for no secret."""
        if isinstance(value, str):
            return _PLACEHOLDER.sub(self._one, value)
        import pulumi

        return pulumi.Output.from_input(value).apply(lambda text: _PLACEHOLDER.sub(self._one, text))

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
            case "database":
                return database_url(name)
            case "tool" if self.image and name in self.image.programs:
                return self.image.programs[name]
            case "tool-home" if self.image and name in self.image.homes:
                return self.image.homes[name]
            case _:
                raise ConfigError("cannot be resolved in this image", field="placeholder", value=found[0])


def database_url(name: str) -> str:
    """Return the URL of the database `name`, without its password: that is read from a file."""
    role = database_role(name)
    return f"postgresql://{role}@postgres:5432/{role}?passfile={CONFIG}/{pass_file(name)}"


def database_role(name: str) -> str:
    """Return the name of the database `name` in Postgres, and of the role which owns it."""
    return name.replace("-", "_")


def pass_file(name: str) -> str:
    """Return the name of the file with the password of the database `name`, as libpq reads it."""
    return f"pgpass-{name}"


def entrypoint_of(secret_env: Mapping[str, str]) -> list[str]:
    """Return an entry point which puts secrets into the environment of what it becomes; empty where there are none.

    The environment a container is declared with can be read by everybody who may ask the daemon; what a process makes
    of its own can not. The script names files, never values.
    """
    if not secret_env:
        return []
    exports = "".join(
        f'{variable}="$(cat {SECRETS}/{name})"; export {variable}; ' for variable, name in sorted(secret_env.items())
    )
    return ["/bin/sh", "-ceu", f'{exports}exec "$@"', "tidemill"]
