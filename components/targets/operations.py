"""What the command line does with a platform that is up, without the engine; each target does it in its own way.

Imports no Pulumi, and neither do the modules `operations` of the targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

__all__ = ["Operations", "ServiceState"]


@dataclass(frozen=True)
class ServiceState:
    """A service as its target sees it.

    Attributes:
        name: the service.
        state: running, starting, stopped, or failing (it ends and is started again).
        pid: number of its process on this machine, or None.
        memory_mb: memory it uses, or None where that is not known.
        uptime_seconds: since its last start, or None.
        problem: what the target itself knows to be wrong with it: empty where it knows it to be well, None where it
            does not know, and the service is to be asked.
    """

    name: str
    state: Literal["running", "starting", "stopped", "failing"]
    pid: int | None = None
    memory_mb: float | None = None
    uptime_seconds: float | None = None
    problem: str | None = None


class Operations(Protocol):
    """A platform that is up. Where it cannot be reached, every method raises UnreachableError."""

    def made(self) -> bool:
        """Tell whether anything of the stack is, or was, up."""
        ...

    def services(self) -> list[ServiceState]:
        """Return every service which was made, running or not, by name."""
        ...

    def url(self, service: str) -> str | None:
        """Return where this machine reaches `service`, without a trailing slash; None where it does not."""
        ...

    def version(self, service: str) -> str | None:
        """Return the version of the program behind `service`, or None where it is not known."""
        ...

    def stop(self) -> int:
        """Stop every service and return how many ran; data, models, keys and addresses are kept."""
        ...

    def start(self) -> None:
        """Start every service which was made."""
        ...

    def restart(self, service: str) -> None:
        """Stop `service` and start it again."""
        ...

    def logged(self) -> list[str]:
        """Return the names of the services and jobs which have a log."""
        ...

    def logs(self, name: str, lines: int, *, follow: bool = False) -> Iterator[str]:
        """Yield the last lines of the log of a service or job, without line ends; with `follow` go on as it grows.

        Raises:
            NotFoundError: it has written no log yet.
        """
        ...

    def log_place(self, name: str) -> str:
        """Return where that log is kept, for people."""
        ...

    def secret(self, name: str) -> str:
        """Return the value of a secret of the stack.

        Raises:
            NotFoundError: the stack has no such secret.
        """
        ...

    def secret_place(self, name: str) -> str:
        """Return where a secret is kept, for people: never its value."""
        ...

    def secret_file(self, name: str) -> Path | None:
        """Return the file of this machine which holds a secret, or None where there is none."""
        ...

    def ask(self, service: str, path: str, *, token: str | None = None) -> tuple[int, bytes] | None:
        """Return status and body of `GET path` of `service`; None when it does not answer or cannot be reached.

        Args:
            service: the service.
            path: the path with its leading slash.
            token: the secret which is shown as bearer token.
        """
        ...
