"""How the service starts what trains, whatever it runs on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

__all__ = ["JobSpec", "JobStatus", "Launcher"]


@dataclass(frozen=True)
class JobSpec:
    """A command which runs once.

    Attributes:
        id: deterministic and unique; letters, digits and `-`.
        argv: the command; `python` as the first word is the Python of the service.
        cwd: absolute folder in which it runs.
        env: all it sees of the environment, besides what any program needs (PATH, HOME, locale, certificates).
    """

    id: str
    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class JobStatus:
    """What became of a job.

    Attributes:
        state: `unknown` was never launched; `lost` ended without leaving word, killed or with the machine.
        started: when it began, seconds since the epoch, where known.
        exit_code: of an `exited` job; negative is the signal which ended it.
    """

    state: Literal["unknown", "running", "exited", "lost"]
    started: float | None = None
    exit_code: int | None = None


class Launcher(Protocol):
    """Runs jobs which outlive the service that launched them, and finds them again by their ids."""

    def launch(self, spec: JobSpec) -> str:
        """Start the job unless one of its id was ever started; return the id.

        Raises:
            ServiceError: it cannot be started.
        """
        ...

    def status(self, job: str) -> JobStatus:
        """Return what became of the job."""
        ...

    def logs(self, job: str, lines: int = 20) -> str:
        """Return the last lines of what the job printed."""
        ...

    def where(self, job: str) -> str:
        """Return where what the job prints is kept, for people."""
        ...

    def cancel(self, job: str) -> None:
        """End the job and all it started; nothing happens where it does not run."""
        ...
