"""Work which is done in a short-lived process of its own: it may need much memory, take long, or crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from ..engines.errors import UnfitError

__all__ = ["run_child"]


def run_child(module: str, arguments: Sequence[str], order: Mapping[str, Any], *, seconds: float, what: str) -> None:
    """Run `python -m MODULE ARGUMENTS` to its end, with `order` as JSON on its standard input.

    Args:
        module: an importable module which is a command.
        arguments: for it.
        order: what it is to do; may name files with secrets, never hold one.
        seconds: after which it is killed.
        what: what it is about, for the message.

    Raises:
        UnfitError: it failed; the message ends with the last line that it wrote to standard error.
    """
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            # A group of its own, so that what it starts ends with it.
            start_new_session=True,
        )
        try:
            process.communicate(json.dumps(order).encode(), timeout=seconds)
        except subprocess.TimeoutExpired:
            raise UnfitError(f"{what}: not done after {seconds:.0f} s") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode == 0:
            return
        said.seek(0)
        lines = [line.strip() for line in said.read().decode("utf-8", "replace").splitlines() if line.strip()]
    last = lines[-1][:1000] if lines else "it said nothing"
    if process.returncode < 0:
        last = f"killed by {signal.Signals(-process.returncode).name}; {last}"
    raise UnfitError(f"{what}: {last}")
