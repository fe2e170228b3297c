"""Runs uv, to build wheels and to write lock files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..runtime.common.errors import PlatformError

# They select another environment, or forbid uv to change the lock.
_REMOVED_VARIABLES = ("VIRTUAL_ENV", "UV_FROZEN")


def run_uv(
    arguments: Sequence[str], folder: Path, *, seconds: float, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run uv in `folder`; return the finished process, also after a failure.

    Args:
        arguments: the arguments of uv.
        folder: the working directory.
        seconds: the timeout.
        variables: more environment variables.

    Raises:
        UnbuildableError: uv is not installed.
        PlatformError: uv did not finish in time.
    """
    from ..runtime.serving.isolation.environment import find_uv

    environment = {key: value for key, value in os.environ.items() if key not in _REMOVED_VARIABLES}
    try:
        return subprocess.run(
            [*find_uv(), *arguments],
            cwd=folder,
            env={**environment, "NO_COLOR": "1", **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise PlatformError(f"uv did not finish in {seconds:.0f} s", field=arguments[0]) from None
