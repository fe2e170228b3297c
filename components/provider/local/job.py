"""Job on this machine: a process which runs once, to its end, and outlives an engine which is killed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

from ....runtime.common.errors import PlatformError, ServiceError
from ...layout import StackRoot
from ..base import Context, Properties
from . import launch
from .files import claim, log_tail, read_json, root_of
from .process import Process, write_spec

__all__ = ["Job"]

_TIMEOUT = 1800.0
_EVERY = 0.1


class Job(Process):
    """A process which ran once; only changed triggers make it run again."""

    token: ClassVar[str] = "tidemill-native:local:Job"
    optional: ClassVar[tuple[str, ...]] = (
        *("env", "secretEnv", "secrets", "configFiles", "timeout", "triggers", "cwd"),
    )
    outputs: ClassVar[tuple[str, ...]] = ("exitCode", "log")
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "root", "name", "triggers")

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Run it, or wait for the run which an interrupted creation left; one which ended well is not run again."""
        root = claim(context, inputs)
        name = str(inputs["name"])
        folder = root.job(name)
        digest = _digest(inputs)
        if not _succeeded(folder, digest):
            if not launch.recorded(_record(folder)) or _digest_in(folder / "spec.json") != digest:
                _end(folder)
                _start(context, root, inputs, digest)
            _finish(context, root, name, digest)
        return name, {**inputs, "exitCode": 0, "log": str(root.log(name))}

    def read(self, context: Context, state: Properties) -> Properties | None:
        """A run is over; nothing of it can change."""
        del context
        return state

    def update(self, context: Context, state: Properties, inputs: Properties) -> Properties:
        """Take note of other settings."""
        del context
        return {**inputs, "exitCode": state.get("exitCode", 0), "log": state.get("log")}

    def delete(self, context: Context, state: Properties) -> None:
        """Forget the run; its log stays."""
        del context
        root = root_of(state)
        name = str(state["name"])
        folder = root.job(name)
        _end(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _digest(inputs: Properties) -> str:
    return hashlib.sha256(json.dumps(inputs.get("triggers") or {}, sort_keys=True).encode()).hexdigest()


def _digest_in(path: Path) -> str | None:
    return (read_json(path) or {}).get("digest")


def _succeeded(folder: Path, digest: str) -> bool:
    done = read_json(folder / "done.json") or {}
    return done.get("digest") == digest and done.get("exit_code") == 0


def _record(folder: Path) -> Path:
    return folder / "process.json"


def _end(folder: Path) -> None:
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
        done=str(folder / "done.json"),
        timeout=float(inputs.get("timeout") or _TIMEOUT),
    )
    root.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(root.log(name), "w", opener=launch.private) as file:
        started = subprocess.Popen(
            [sys.executable, "-I", "-S", launch.__file__, str(spec)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            # The engine's end must not be the job's; the next `up` waits for it.
            start_new_session=True,
            env=launch.inherited(os.environ) | {launch.MARKER: f"{root.path}/{name}"},
            umask=0o077,
        )
    while launch.read_record(_record(folder)) is None and started.poll() is None:
        time.sleep(_EVERY / 10)
    # It outlives this process on purpose; without this its object would warn of that when it is collected.
    started.returncode = 0


def _finish(context: Context, root: StackRoot, name: str, digest: str) -> None:
    """Wait until the job has ended.

    Raises:
        ServiceError: it failed.
        PlatformError: the user interrupted; it is ended.
    """
    folder = root.job(name)
    while launch.alive(launch.read_record(_record(folder))):
        if context.cancelled.is_set():
            _end(folder)
            shutil.rmtree(folder, ignore_errors=True)
            raise PlatformError("interrupted while it ran", field=name)
        time.sleep(_EVERY)
    if _succeeded(folder, digest):
        return
    code = (read_json(folder / "done.json") or {}).get("exit_code")
    _end(folder)
    shutil.rmtree(folder, ignore_errors=True)
    how = "was ended from outside" if code is None else f"failed with exit code {code}"
    if code == launch.TIMED_OUT:
        how = "reached its time limit and was ended"
    raise ServiceError(how, field=name, log_tail=log_tail(root, name), hint=f"read {root.log(name)}")
