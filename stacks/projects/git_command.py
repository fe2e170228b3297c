"""Runs Git."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from ...runtime.common.errors import ToolError


def run_git(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run Git in `folder`, with the environment `env` or this process's; the caller checks the exit code.

    Raises:
        ToolError: Git is not installed.
    """
    argv = ["git", *arguments]
    try:
        return subprocess.run(argv, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except FileNotFoundError:
        raise ToolError("is not installed", field="git", hint="install it") from None


def message_of(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return what Git printed on stderr."""
    return done.stderr.decode(errors="replace").strip()
