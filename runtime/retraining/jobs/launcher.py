"""The interface through which the retraining service runs training jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol


@dataclass(frozen=True)
class JobSpec:
    """A command that runs once.

    Attributes:
        id: deterministic and unique; letters, digits and `-`.
        argv: the command; `python` as the first word is the service's own Python.
        cwd: absolute folder in which it runs.
        env: its environment, in addition to basics such as PATH, HOME, locale and certificates.
    """

    id: str
    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class JobStatus:
    """The state of a job.

    Attributes:
        state: `unknown` was never launched; `lost` ended without an exit code, killed or with the machine.
        started: start time in seconds since the epoch, if known.
        exit_code: exit code of an `exited` job; a negative number is the signal that killed it.
    """

    state: Literal["unknown", "running", "exited", "lost"]
    started: float | None = None
    exit_code: int | None = None


class Launcher(Protocol):
    """Runs jobs that outlive the service, and finds them again by their ids."""

    def launch(self, spec: JobSpec) -> str:
        """Start the job unless a job with this id was ever started; return the id.

        Raises:
            ServiceError: the job cannot be started.
        """
        ...

    def status(self, job: str) -> JobStatus:
        """Return the state of the job."""
        ...

    def logs(self, job: str, lines: int = 20) -> str:
        """Return the last lines of the job's output."""
        ...

    def where(self, job: str) -> str:
        """Return where a person finds the job's output."""
        ...

    def cancel(self, job: str) -> None:
        """Stop the job and its child processes, if it is running."""
        ...
