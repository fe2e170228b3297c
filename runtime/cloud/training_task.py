"""Runs a training in its own task and records its exit code in S3.

`TIDEMILL_JOBS` is the prefix in S3 of the jobs' records. ECS forgets a task one hour after its end; the record stays.
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

JOBS = "TIDEMILL_JOBS"
_JOB = "TIDEMILL_JOB_ID"
_NOT_STARTED = 127


def run(s3: Any, command: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run `command`, record its exit code next to the job's record, and return it."""
    argv = [sys.executable, *command[1:]] if command[0] == "python" else list(command)
    try:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, env=dict(environ), start_new_session=True)
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
        code = _NOT_STARTED
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
