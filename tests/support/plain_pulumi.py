"""A project driven by the real `pulumi` command line, as somebody who knows nothing of `tidemill` drives it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tidemill.components import tools

from tests.support import langhost


class PlainPulumi:
    """A folder with a Pulumi.yaml, its state and its passphrase.

    Args:
        project: the folder; it gets this environment as its `.venv` where it has none.
        scratch: an empty folder for the state and the language host.
        stack: the stack.
    """

    def __init__(self, project: Path, scratch: Path, stack: str) -> None:
        self.project, self.stack = project, stack
        if not (project / ".venv").exists():
            (project / ".venv").symlink_to(sys.prefix, target_is_directory=True)
        state = scratch / "state"
        state.mkdir(parents=True)
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("PULUMI_", "TIDEMILL_"))},
            **{key: value for key, value in os.environ.items() if key == "TIDEMILL_CACHE"},
            "PATH": f"{langhost.install(scratch / 'hosts')}{os.pathsep}{os.environ['PATH']}",
            "PULUMI_HOME": str(scratch / "home"),
            "PULUMI_BACKEND_URL": state.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        }

    def run(self, *args: str, timeout: float = 300, **env: str) -> subprocess.CompletedProcess[str]:
        """Run `pulumi ARGS` on the stack."""
        return subprocess.run(
            [str(tools.ensure("pulumi")), *args, "--stack", self.stack, "--non-interactive", "--color", "never"],
            cwd=self.project,
            env={**self.environment, **env},
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def check(self, *args: str, timeout: float = 300, **env: str) -> str:
        """Run `pulumi ARGS`, which must succeed, and return its standard output."""
        done = self.run(*args, timeout=timeout, **env)
        assert done.returncode == 0, f"pulumi {' '.join(args)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def outputs(self) -> dict[str, Any]:
        """Return the outputs of the stack."""
        return json.loads(self.check("stack", "output", "--json"))
