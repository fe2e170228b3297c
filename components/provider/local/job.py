"""Job on this machine: a process that runs once, to its end, and survives a killed engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NotRequired

from ...layout import StackRoot
from ..base import Context, Properties
from ..job import interrupted, time_limit
from . import launch
from .files import read_json, root_of
from .process import Process, ProcessInputs, write_spec
from .recorded_job import RecordedJob, failed_job, result_file, succeeded

if TYPE_CHECKING:
    import pulumi

    from ..base import Text

_EVERY = 0.1


class JobInputs(ProcessInputs):
    """Inputs of a job; it runs again when `triggers` change. `timeout` is in seconds."""

    timeout: NotRequired[pulumi.Input[float] | None]
    triggers: NotRequired[Mapping[str, Text] | None]


class Job(RecordedJob, Process, inputs=JobInputs):
    """A process that runs once; only changed triggers make it run again."""

    token: ClassVar[str] = "tidemill-native:local:Job"

    def run(self, context: Context, root: StackRoot, inputs: Properties, digest: str) -> None:
        """Run the process to its end."""
        folder = root.job(str(inputs["name"]))
        started_with = (read_json(folder / "spec.json") or {}).get("digest")
        if not launch.recorded(_record(folder)) or started_with != digest:
            _stop(folder)
            _start(context, root, inputs, digest)
        _wait(context, root, inputs, digest)

    def delete(self, context: Context, state: Properties) -> None:
        """Stop the process and delete the record of the run; keep its log."""
        _stop(root_of(state).job(str(state["name"])))
        super().delete(context, state)


def _record(folder: Path) -> Path:
    return folder / "process.json"


def _stop(folder: Path) -> None:
    launch.end(lambda: launch.recorded(_record(folder)), 10.0)


def _start(context: Context, root: StackRoot, inputs: Properties, digest: str) -> None:
    name = str(inputs["name"])
    folder = root.job(name)
    shutil.rmtree(folder, ignore_errors=True)
    spec = write_spec(
        inputs,
        folder,
        digest,
        record=_record(folder),
        get_tools=context.say,
        done=str(result_file(folder)),
        timeout=time_limit(inputs),
    )
    root.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(root.log(name), "w", opener=launch.private) as file:
        started = subprocess.Popen(
            launch.command(spec),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            # The job must survive the engine; the next `up` waits for it.
            start_new_session=True,
            env=launch.inherited(os.environ) | {launch.MARKER: f"{root.path}/{name}"},
            umask=0o077,
        )
    while launch.read_record(_record(folder)) is None and started.poll() is None:
        time.sleep(_EVERY / 10)
    # The process outlives this one on purpose; without this, Python warns when `started` is collected.
    started.returncode = 0


def _wait(context: Context, root: StackRoot, inputs: Properties, digest: str) -> None:
    name = str(inputs["name"])
    folder = root.job(name)
    while launch.alive(launch.read_record(_record(folder))):
        if context.cancelled.is_set():
            _stop(folder)
            shutil.rmtree(folder, ignore_errors=True)
            raise interrupted(name)
        time.sleep(_EVERY)
    if succeeded(folder, digest):
        return
    code = (read_json(result_file(folder)) or {}).get("exit_code")
    _stop(folder)
    shutil.rmtree(folder, ignore_errors=True)
    raise failed_job(root, name, code, time_limit(inputs) if code == launch.TIMED_OUT else None)
