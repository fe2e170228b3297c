"""The folders of a stack on this machine.

    <home>/                     TIDEMILL_HOME, else `.tidemill` beside Pulumi.yaml
      passphrase                0600, generated once
      state/                    the engine's default backend
      stacks/<team>-<env>/      the root of one stack, 0700
        secrets/NAME            0600
        services/NAME/          spec.json and config/ of one service
        data/NAME/              object stores and databases
        jobs/NAME/              spec.json, done.json of one job
        logs/NAME.log           one log per service or job
        run/                    supervisord's files, run/NAME.json: pid and start time of each service
        endpoints.json          the assigned ports
        owner.json              the stack to which this root belongs

This module imports no Pulumi, so that the provider and the command line start quickly.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..runtime.common.errors import NotFoundError

# A Unix socket's path holds 108 bytes with its final zero (unix(7)).
_SOCKET_LIMIT = 100


def find_project(start: Path | None = None) -> Path:
    """Return the nearest folder with a Pulumi.yaml at or above `start` (default: the working directory).

    Raises:
        NotFoundError: there is none.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "Pulumi.yaml").is_file():
            return folder
    raise NotFoundError(
        "no Pulumi.yaml here or above", field="project", value=str(here), hint="change to a tidemill project's folder"
    )


def home(project: Path) -> Path:
    """Return the folder in which tidemill keeps everything of `project` on this machine."""
    override = os.environ.get("TIDEMILL_HOME")
    return Path(override).expanduser().resolve() if override else project / ".tidemill"


@dataclass(frozen=True)
class StackRoot:
    """The folders of one stack."""

    path: Path

    @classmethod
    def of(cls, project: Path, stack: str) -> StackRoot:
        """Return the root of `stack` in `project`."""
        return cls(home(project) / "stacks" / stack)

    @property
    def secrets(self) -> Path:
        """Folder of the secrets, one file of mode 0600 each."""
        return self.path / "secrets"

    @property
    def run(self) -> Path:
        """Folder of supervisord's files and of the process records."""
        return self.path / "run"

    @property
    def logs(self) -> Path:
        """Folder of the logs."""
        return self.path / "logs"

    @property
    def endpoints(self) -> Path:
        """File with the assigned ports."""
        return self.path / "endpoints.json"

    @property
    def owner(self) -> Path:
        """File that names the owner of this root."""
        return self.path / "owner.json"

    def service(self, name: str) -> Path:
        """Folder of the service `name`."""
        return self.path / "services" / name

    def data(self, name: str) -> Path:
        """Folder of the object store or database `name`."""
        return self.path / "data" / name

    def job(self, name: str) -> Path:
        """Folder of the job `name`."""
        return self.path / "jobs" / name

    def log(self, name: str) -> Path:
        """Log of the service or job `name`."""
        return self.logs / f"{name}.log"

    @property
    def conf(self) -> Path:
        """Folder of supervisord's files, one per service."""
        return self.run / "conf.d"

    def record(self, name: str) -> Path:
        """Record of the process of the service or job `name`: its id, start time and group."""
        return self.run / f"{name}.json"

    @property
    def socket(self) -> Path:
        """Supervisord's Unix socket, in a short private folder if the root's own path is too long.

        That folder depends on the caller's environment, so the first choice is stored in `kept_socket`.
        """
        natural = self.run / "supervisor.sock"
        if len(os.fsencode(natural)) <= _SOCKET_LIMIT:
            return natural
        try:
            return Path(self.kept_socket.read_text(encoding="utf-8").strip())
        except FileNotFoundError:
            pass
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]
        base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
        if len(os.fsencode(base)) > _SOCKET_LIMIT // 2:
            base = Path("/tmp")  # noqa: S108 - only its own 0700 folder below is used
        return base / f"tidemill-{os.getuid()}-{digest}" / "supervisor.sock"

    @property
    def kept_socket(self) -> Path:
        """File with the path of a socket outside the root."""
        return self.run / "socket"
