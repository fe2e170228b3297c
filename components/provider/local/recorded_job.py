"""The part of a job that local and docker share: its log and its result are files below the stack's root."""

from __future__ import annotations

import hashlib
import json
import shutil
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from ....runtime.common.errors import ServiceError
from ...layout import StackRoot
from ..base import Context, Properties
from ..job import RunOnce, failed
from .files import claim, log_tail, read_json, root_of


class RecordedJob(RunOnce):
    """A job on this machine; a run that succeeded with the same triggers is not repeated."""

    replace_on: ClassVar[tuple[str, ...]] = ("stack", "root", "name", "triggers")

    @abstractmethod
    def run(self, context: Context, root: StackRoot, inputs: Properties, digest: str) -> None:
        """Run the job to its end, or wait for the run of an interrupted creation, and record the result.

        `digest`, a hash of the triggers, identifies the run.

        Raises:
            ServiceError: the job failed or reached its time limit.
            PlatformError: the user interrupted; the job is stopped.
        """

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Run the job, unless it succeeded before with the same triggers."""
        root = claim(context, inputs)
        name = str(inputs["name"])
        digest = hashlib.sha256(json.dumps(inputs.get("triggers") or {}, sort_keys=True).encode()).hexdigest()
        if not succeeded(root.job(name), digest):
            self.run(context, root, inputs, digest)
        return name, {**inputs, "exitCode": 0, "log": str(root.log(name))}

    def delete(self, context: Context, state: Properties) -> None:
        """Delete the record of the run; keep its log."""
        shutil.rmtree(root_of(state).job(str(state["name"])), ignore_errors=True)


def result_file(folder: Path) -> Path:
    """Return the file with the result of the job in `folder`."""
    return folder / "done.json"


def succeeded(folder: Path, digest: str) -> bool:
    """Return whether the run `digest` of the job in `folder` succeeded."""
    result = read_json(result_file(folder)) or {}
    return result.get("digest") == digest and result.get("exit_code") == 0


def failed_job(root: StackRoot, name: str, code: int | None, limit: float | None) -> ServiceError:
    """Return the error for a failed job, with the end of its log; see `failed`."""
    return failed(name, code, limit, log_tail(root, name), f"read {root.log(name)}")
