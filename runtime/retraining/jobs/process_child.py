"""The parent process of a job: it claims the job, runs its command and records the exit code.

    python -I process_child.py FOLDER LOG COMMAND...

It runs as a script, so that it imports only the standard library and psutil. It creates `FOLDER/process.json`
exclusively, so only one of two launches runs the job. A service that was killed can safely launch the job again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType

import psutil


def main(arguments: list[str]) -> int:
    """Run the job and return its exit code; return 0 immediately if another process has claimed it."""
    folder, log, command = Path(arguments[0]), Path(arguments[1]), arguments[2:]
    me = psutil.Process()
    if not _claim(folder / "process.json", {"pid": me.pid, "started": me.create_time()}):
        return 0
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=descriptor, stderr=subprocess.STDOUT)
    except OSError as error:
        os.write(descriptor, f"cannot start {command[0]}: {error.strerror}\n".encode())
        code = 127
    else:

        def forward(number: int, _: FrameType | None) -> None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

        signal.signal(signal.SIGTERM, forward)
        code = process.wait()
    _write(folder / "exit.json", {"exit_code": code})
    return code if code >= 0 else 128 - code


def _claim(path: Path, content: dict[str, float]) -> bool:
    """Create `path` with its content atomically; return False if it exists."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".claim-") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
        try:
            # A link is atomic and never replaces a file.
            os.link(file.name, path)
        except FileExistsError:
            return False
    return True


def _write(path: Path, content: dict[str, int]) -> None:
    hidden = path.with_name(f".{path.name}.partial")
    with hidden.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    hidden.rename(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
