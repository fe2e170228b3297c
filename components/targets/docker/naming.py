"""Names on the target docker, and settings that its containers share. Imports no Pulumi."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...images.container_layout import CONFIG, SECRETS
from ..postgres_access import database_role, pass_file

TMPFS: Mapping[str, str] = {"/tmp": "rw,nosuid,nodev,size=256m,mode=1777"}  # noqa: S108 - the container's own


@dataclass(frozen=True)
class Names:
    """Names in Docker, which all stacks of a machine share."""

    team: str
    environment: str

    @property
    def stack(self) -> str:
        """TEAM-ENVIRONMENT."""
        return f"{self.team}-{self.environment}"

    def of(self, name: str) -> str:
        """Return the name in Docker of the stack's `name`."""
        return f"tidemill-{self.stack}-{name}"

    def labels(self, **more: str) -> dict[str, str]:
        """Return the labels of everything that the stack creates."""
        return {
            "managed-by": "tidemill",
            "tidemill.stack": self.stack,
            "tidemill.team": self.team,
            "tidemill.environment": self.environment,
            **{f"tidemill.{key}": value for key, value in more.items()},
        }


def database_url(name: str) -> str:
    """Return the URL of the database `name`; libpq reads the password from a file."""
    role = database_role(name)
    return f"postgresql://{role}@postgres:5432/{role}?passfile={CONFIG}/{pass_file(name)}"


def entrypoint_of(secret_env: Mapping[str, str]) -> list[str]:
    """Return an entry point that exports secrets and then runs the command; empty if there are none.

    Anyone with access to the daemon can read the environment that a container is declared with, but not what a process
    adds to its own. The script names files, never values.

    Args:
        secret_env: environment variable -> secret.
    """
    if not secret_env:
        return []
    exports = "".join(
        f'{variable}="$(cat {SECRETS}/{name})"; export {variable}; ' for variable, name in sorted(secret_env.items())
    )
    return ["/bin/sh", "-ceu", f'{exports}exec "$@"', "tidemill"]
