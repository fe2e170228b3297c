"""`Operations`: what the command line does with a running platform, without the engine.

This module and the modules `operations` of the targets import no Pulumi.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol


@dataclass(frozen=True)
class ServiceState:
    """The state of a service as its target reports it.

    Attributes:
        name: the service.
        state: running, starting, stopped, failing (it ends and is restarted), or unsupervised (it runs, but nothing
            would restart it).
        pid: id of its process on this machine, or None.
        memory_mb: memory it uses, or None if unknown.
        uptime_seconds: since its last start, or None.
        problem: why the target considers it unhealthy; empty if it is healthy, None if only the service can tell.
    """

    name: str
    state: Literal["running", "starting", "stopped", "failing", "unsupervised"]
    pid: int | None = None
    memory_mb: float | None = None
    uptime_seconds: float | None = None
    problem: str | None = None


class Operations(Protocol):
    """A platform that is up. Every method raises UnreachableError if the target cannot be reached."""

    def made(self) -> bool:
        """Return whether anything of the stack exists, running or not."""
        ...

    def services(self) -> list[ServiceState]:
        """Return all services of the stack, running or not, by name."""
        ...

    def runs(self, service: str) -> bool:
        """Return whether `service` runs."""
        ...

    def url(self, service: str) -> str | None:
        """Return the URL of `service` for this machine, without a trailing slash, or None if it is not reachable."""
        ...

    def version(self, service: str) -> str | None:
        """Return the version of the program behind `service`, or None if unknown."""
        ...

    def stop(self) -> int:
        """Stop all services and return how many ran. Keeps data, models, keys and addresses."""
        ...

    def start(self) -> None:
        """Start all services of the stack."""
        ...

    def restart(self, service: str) -> None:
        """Stop `service` and start it again."""
        ...

    def logged(self) -> list[str]:
        """Return the names of the services and jobs that have a log."""
        ...

    def logs(self, name: str, lines: int, *, follow: bool = False) -> Iterator[str]:
        """Yield the last lines of the log of a service or job, without line ends.

        Args:
            name: the service or job.
            lines: how many lines.
            follow: whether to continue as the log grows.

        Raises:
            NotFoundError: there is no log yet.
        """
        ...

    def log_place(self, name: str) -> str:
        """Return where the log of a service or job is kept, for people."""
        ...

    def secret(self, name: str) -> str:
        """Return the value of a secret of the stack.

        Raises:
            NotFoundError: the stack has no such secret.
        """
        ...

    def secret_place(self, name: str) -> str:
        """Return where a secret is kept, for people."""
        ...

    def secret_file(self, name: str) -> Path | None:
        """Return the file on this machine that contains a secret, or None if there is none."""
        ...

    def ask(self, service: str, path: str, *, token: str | None = None) -> tuple[int, bytes] | None:
        """Return status and body of `GET path` of `service`, or None if it does not answer.

        Args:
            service: the service.
            path: the path, with its leading slash.
            token: name of the secret to send as bearer token.
        """
        ...
