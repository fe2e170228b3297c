"""A training in a task of its own: it claims its job, runs its command, and leaves word of how that ended.

`TIDEMILL_JOBS` names the place in S3 of the jobs' records. ECS forgets a task an hour after its end; the word stays.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from .task_files import place_of

__all__ = ["JOBS", "run"]

JOBS = "TIDEMILL_JOBS"
_JOB = "TIDEMILL_JOB_ID"
_STARTED_NOTHING = 127


def run(s3: Any, command: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run `command` and return its exit code, which then stands beside the job's record."""
    argv = [sys.executable, *command[1:]] if command[0] == "python" else list(command)
    try:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, env=dict(environ), start_new_session=True)
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
        code = _STARTED_NOTHING
    else:

        def forward(number: int, _: FrameType | None) -> None:
            if process.poll() is None:
                os.killpg(process.pid, number)

        signal.signal(signal.SIGTERM, forward)
        code = process.wait()
    place = place_of(environ[JOBS])
    s3.put_object(
        Bucket=place.bucket,
        Key=f"{place.key.rstrip('/')}/{environ[_JOB]}/exit.json",
        Body=json.dumps({"exit_code": code}).encode(),
        ChecksumAlgorithm="SHA256",
    )
    return code if code >= 0 else 128 - code
