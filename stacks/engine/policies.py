"""How the engine comes to the policy pack: its folder, and an executable which runs it with this very Python."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from pathlib import Path

from ...components import policies
from .environment import private_folder

__all__ = ["EXECUTABLE", "PACK", "install"]

PACK = Path(policies.__file__).parent
"""The folder with PulumiPolicy.yaml, for `--policy-pack`."""

EXECUTABLE = "pulumi-analyzer-policy-tidemill"
"""What the engine looks for on PATH: the runtime's name in PulumiPolicy.yaml after what is always so."""


def install(home: Path) -> Path:
    """Write the executable into the private folder of a project, and return the folder which is to be on PATH.

    Another install of tidemill may have written one before; the one which runs now is right.
    """
    folder = private_folder(home / "policies")
    # -P: the engine starts it within the pack's folder, whose modules must not pass for others.
    command = shlex.join([sys.executable, "-u", "-P", "-m", "tidemill.stacks.engine.policy_pack"])
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".executable-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f'#!/bin/sh\nexec {command} "$@"\n')
    Path(temporary).chmod(0o700)
    Path(temporary).replace(folder / EXECUTABLE)
    return folder
