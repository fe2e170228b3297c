"""Runs jobs as processes of this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import psutil

from ...common.errors import ServiceError
from . import process_child
from .launcher import JobSpec, JobStatus

# Variables that any program needs; none of them is about the service.
_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "SSL_CERT_FILE")
_CLAIM_SECONDS = 30.0
_STOP_SECONDS = 4.0
# Tolerance: the kernel counts in ticks, and the wall clock may be corrected.
_SAME_START = 2.0


class ProcessLauncher:
    """A `Launcher` whose jobs are processes, each in its own session.

    <folder>/ID/process.json   pid and start time, written by the job's process before its command starts
    <folder>/ID/exit.json      its exit code
    <folder>/ID.log            its output

    A job survives its service, and records its exit code even while the service is down.

    Args:
        folder: for the records and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._launched: dict[str, tuple[subprocess.Popen[bytes], float]] = {}

    def launch(self, spec: JobSpec) -> str:
        """Start the job unless a job with this id was ever started; see `Launcher.launch`."""
        folder = self.folder / spec.id
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if (folder / "process.json").exists():
            return spec.id
        if not spec.cwd.is_dir():
            raise ServiceError("the folder of the training code does not exist", field="code", value=str(spec.cwd))
        command = [sys.executable, *spec.argv[1:]] if spec.argv[0] == "python" else list(spec.argv)
        kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        # Programs installed with the service's Python, such as `uv` or `dvc`, come first.
        kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
        argv = [sys.executable, "-I", str(Path(process_child.__file__)), str(folder), str(self._log(spec.id)), *command]
        try:
            process = subprocess.Popen(
                argv,
                cwd=spec.cwd,
                env={**kept, "PYTHONUNBUFFERED": "1", **spec.env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise ServiceError(f"the job cannot be started ({error.strerror})", field="job", value=spec.id) from None
        self._launched[spec.id] = (process, time.monotonic())
        return spec.id

    def status(self, job: str) -> JobStatus:
        """Return the state of the job."""
        held, since = self._launched.get(job, (None, 0.0))
        if held is not None:
            held.poll()  # reaps it if it has ended
        record = _read(self.folder / job / "process.json")
        if record is None:
            if held is None:
                return JobStatus("unknown")
            starting = held.returncode is None and time.monotonic() - since < _CLAIM_SECONDS
            return JobStatus("running" if starting else "lost")
        started = float(record["started"])
        alive = self._process(record) is not None
        # In this order: a job that ends in between has written its exit code.
        ended = _read(self.folder / job / "exit.json")
        if ended is not None:
            if held is not None:
                held.wait()  # it writes the exit code just before it ends
                self._launched.pop(job, None)
            return JobStatus("exited", started, int(ended["exit_code"]))
        return JobStatus("running" if alive else "lost", started)

    def logs(self, job: str, lines: int = 20) -> str:
        """Return the last lines of the job's output."""
        try:
            with self._log(job).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 65536))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def where(self, job: str) -> str:
        """Return the path of the job's log file."""
        return str(self._log(job))

    def cancel(self, job: str) -> None:
        """Stop the job and its child processes: SIGTERM, four seconds later SIGKILL."""
        record = _read(self.folder / job / "process.json")
        held, _ = self._launched.get(job, (None, 0.0))
        if record is not None:
            group = int(record["pid"])
            if self._process(record) is None and psutil.pid_exists(group) and not _is_zombie(group):
                return  # the pid was reused, so no process of the job's group is alive
        elif held is not None and held.poll() is None:
            group = held.pid  # it has not claimed the job yet
        else:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(group, number)
            except ProcessLookupError:
                return
            end = time.monotonic() + _STOP_SECONDS
            while time.monotonic() < end and _group_lives(group):
                self.status(job)
                time.sleep(0.05)

    def _log(self, job: str) -> Path:
        return self.folder / f"{job}.log"

    def _process(self, record: dict[str, Any]) -> psutil.Process | None:
        """Return the process of `record`, or None if it has ended or its pid was reused."""
        try:
            process = psutil.Process(int(record["pid"]))
            same = abs(process.create_time() - float(record["started"])) < _SAME_START
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
