"""Runs uv for what is made here: wheels, locks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..runtime.common.errors import PlatformError

__all__ = ["run_uv"]

# These would point it at another environment than the one it is run for, or forbid what it is run for.
_LEFT_OUT = ("VIRTUAL_ENV", "UV_FROZEN")


def run_uv(
    words: Sequence[str], folder: Path, *, seconds: float, more: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run uv with `words` in `folder`, with the variables `more` besides ours; return what came of it, good or bad.

    Raises:
        UnbuildableError: it is not here.
        PlatformError: it did not end in `seconds`.
    """
    from ..runtime.serving.isolation.environment import find_uv

    kept = {key: value for key, value in os.environ.items() if key not in _LEFT_OUT}
    try:
        return subprocess.run(
            [*find_uv(), *words],
            cwd=folder,
            env={**kept, "NO_COLOR": "1", **(more or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise PlatformError(f"uv did not end in {seconds:.0f} s", field=words[0]) from None
