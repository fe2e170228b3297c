"""Runs work that may need much memory, take long or crash in a short-lived child process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from ..engines.errors import TemporaryError, UnfitError

_REFUSED = UnfitError.exit_code


def run_child(
    module: str,
    arguments: Sequence[str],
    request: Mapping[str, Any],
    *,
    seconds: float,
    what: str,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Run `python -m MODULE ARGUMENTS` to its end, with `request` as JSON on its standard input.

    Args:
        module: an importable module that is a command.
        arguments: of the command.
        request: may name files with secrets, but must not contain secrets.
        seconds: timeout; the process is killed after it.
        what: the subject of the error message.
        environ: its environment variables; None: those of this process.

    Raises:
        UnfitError: it refused, with exit code 1; the message ends with the last line of its standard error.
        TemporaryError: it failed in another way, such as a timeout.
    """
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=environ,
            # Its own process group, so that its children are killed with it.
            start_new_session=True,
        )
        try:
            process.communicate(json.dumps(request).encode(), timeout=seconds)
        except subprocess.TimeoutExpired:
            raise TemporaryError(f"{what}: not finished after {seconds:.0f} s") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode == 0:
            return
        stderr.seek(0)
        lines = [line.strip() for line in stderr.read().decode("utf-8", "replace").splitlines() if line.strip()]
    last = lines[-1][:1000] if lines else "no error message"
    if process.returncode < 0:
        last = f"killed by {signal.Signals(-process.returncode).name}; {last}"
    kind = UnfitError if process.returncode == _REFUSED else TemporaryError
    raise kind(f"{what}: {last}")
