"""Runs `python -m tidemill.runtime.cloud prepare|keep|train`."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from ..common.errors import TidemillError
from ..common.service import log_lines
from . import sidecar, task_files, training_task

_USAGE = "usage: python -m tidemill.runtime.cloud prepare | keep | train -- COMMAND...\n"
_MOUNT, _DATA, _SCRATCH = Path("/run/tidemill"), Path("/data"), Path("/scratch")
_TEMPORARY = Path("/tmp")  # noqa: S108 - private to the task
_TEMPORARY_MODE = 0o1777


def main(argv: list[str] | None = None) -> int:
    """Run one of the three commands and return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    log_lines()
    logging.getLogger("botocore").setLevel(logging.WARNING)
    try:
        match arguments:
            case ["prepare"]:
                return _prepare()
            case ["keep"]:
                s3 = task_files.client("s3")
                stop = sidecar.stopping()
                return 0 if sidecar.keep(sidecar.mirrors(s3, task_files.read_files(s3), _DATA), stop) else 1
            case ["train", "--", *command] if command:
                return training_task.run(task_files.client("s3"), command)
            case _:
                sys.stderr.write(_USAGE)
                return 2
    except TidemillError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


def _prepare() -> int:
    """Fill the task's volumes, which belong to root, and make the service's user their owner."""
    s3 = task_files.client("s3")
    files = task_files.read_files(s3)
    task_files.write_files(files, _MOUNT)
    sidecar.restore(sidecar.mirrors(s3, files, _DATA, owner=files.owner))
    for folder in (_MOUNT, _DATA, _SCRATCH):
        os.chown(folder, files.owner, files.owner)
        folder.chmod(0o700)
    _TEMPORARY.chmod(_TEMPORARY_MODE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
