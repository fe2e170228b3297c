"""The process above a job: it claims the job, runs its command and writes down how that ended.

    python -I child.py FOLDER LOG COMMAND...

Run as a file of its own, so that a job starts no more than the standard library and psutil before its command.
`FOLDER/process.json` is made exclusively: of two launches of one job, one runs. A supervisor which was killed may
launch again without asking whether the first launch came through.
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

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Run the job and return its exit code; 0 at once when another process has claimed it."""
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
    """Write `path` whole, unless it exists."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".claim-") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
        try:
            # A link appears with its content or not at all, and never over another.
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
