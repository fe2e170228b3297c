"""The policy pack for the engine: its folder, and an executable that runs it with this Python."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from pathlib import Path

from ...components import policies
from .environment import private_folder

PACK = Path(policies.__file__).parent
"""The folder with PulumiPolicy.yaml, for `--policy-pack`."""

EXECUTABLE = "pulumi-analyzer-policy-tidemill"
"""The program that the engine looks for on PATH: a fixed prefix and the runtime's name in PulumiPolicy.yaml."""


def install(home: Path) -> Path:
    """Write the executable into the private folder of a project, and return that folder, which must be on PATH.

    It replaces the executable of another installation of tidemill.
    """
    folder = private_folder(home / "policies")
    # -P: the engine starts it in the pack's folder, whose modules must not shadow others.
    command = shlex.join([sys.executable, "-u", "-P", "-m", "tidemill.stacks.engine.policy_pack"])
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".executable-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f'#!/bin/sh\nexec {command} "$@"\n')
    Path(temporary).chmod(0o700)
    Path(temporary).replace(folder / EXECUTABLE)
    return folder
