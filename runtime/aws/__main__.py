"""`python -m tidemill.runtime.aws prepare|keep|train`: see the package."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from tidemill.runtime.aws import files, keeper, training
from tidemill.runtime.errors import TidemillError
from tidemill.runtime.service import log_lines

_USAGE = "usage: python -m tidemill.runtime.aws prepare | keep | train -- COMMAND...\n"
_MOUNT, _DATA, _SCRATCH = Path("/run/tidemill"), Path("/data"), Path("/scratch")
_TEMPORARY = Path("/tmp")  # noqa: S108 - the task's own
_FOREIGN = 0o1777


def main(argv: list[str] | None = None) -> int:
    """Run one of the three; return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    log_lines()
    logging.getLogger("botocore").setLevel(logging.WARNING)
    try:
        match arguments:
            case ["prepare"]:
                return _prepare()
            case ["keep"]:
                s3 = files.client("s3")
                stop = keeper.stopping()
                return 0 if keeper.keep(keeper.mirrors(s3, files.read_files(s3), _DATA), stop) else 1
            case ["train", "--", *command] if command:
                return training.run(files.client("s3"), command)
            case _:
                sys.stderr.write(_USAGE)
                return 2
    except TidemillError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


def _prepare() -> int:
    """Fill the task's volumes, which are root's, and give them to whom the service runs as."""
    s3 = files.client("s3")
    found = files.read_files(s3)
    files.write_files(found, _MOUNT)
    keeper.restore(keeper.mirrors(s3, found, _DATA, owner=found.owner))
    for folder in (_MOUNT, _DATA, _SCRATCH):
        os.chown(folder, found.owner, found.owner)
        folder.chmod(0o700)
    _TEMPORARY.chmod(_FOREIGN)
    return 0


if __name__ == "__main__":
    sys.exit(main())
