"""Jobs as processes: one run for one id, found again, ended with all they started."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tidemill.runtime.common.errors import ServiceError
from tidemill.runtime.retraining.jobs import process_child
from tidemill.runtime.retraining.jobs.launcher import JobSpec
from tidemill.runtime.retraining.jobs.process import ProcessLauncher

pytestmark = pytest.mark.integration


def wait(ask: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not ask():
        assert time.monotonic() < end
        time.sleep(0.02)


def spec(folder: Path, code: str, job: str = "a-job") -> JobSpec:
    return JobSpec(job, ["python", "-c", code], folder, {"TIDEMILL_JOB_ID": job})


def of(folder: Path) -> list[psutil.Process]:
    """Return the processes which run in `folder`."""
    return [
        process
        for process in psutil.process_iter(["cwd", "status"])
        if process.info["cwd"] == str(folder) and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def test_what_ended_while_nobody_looked_is_known(tmp_path: Path) -> None:
    first = ProcessLauncher(tmp_path / "jobs")
    first.launch(spec(tmp_path, "print('one'); raise SystemExit(7)"))
    later = ProcessLauncher(tmp_path / "jobs")
    wait(lambda: later.status("a-job").state == "exited")
    assert later.status("a-job").exit_code == 7
    assert later.logs("a-job") == "one"
    assert (tmp_path / "jobs/a-job.log").stat().st_mode & 0o077 == 0
    assert later.status("another").state == "unknown"
    assert first.status("a-job") == later.status("a-job")


def test_two_launches_of_one_job_run_it_once(tmp_path: Path) -> None:
    folder = tmp_path / "jobs/a-job"
    folder.mkdir(parents=True)
    write = f"open({str(tmp_path / 'runs')!r}, 'a').write('x')"
    argv = [
        sys.executable,
        "-I",
        process_child.__file__,
        str(folder),
        str(tmp_path / "log"),
        sys.executable,
        "-c",
        write,
    ]
    both = [subprocess.Popen(argv) for _ in range(4)]
    assert [process.wait(30) for process in both] == [0] * 4
    assert (tmp_path / "runs").read_text() == "x"
    launcher = ProcessLauncher(tmp_path / "jobs")
    launcher.launch(spec(tmp_path, "raise SystemExit(9)"))
    assert launcher.status("a-job").exit_code == 0


def test_cancel_ends_a_job_which_has_hardly_begun_and_one_which_will_not_listen(tmp_path: Path) -> None:
    launcher = ProcessLauncher(tmp_path / "jobs")
    launcher.launch(spec(tmp_path, "import time; time.sleep(600)", "hardly"))
    launcher.cancel("hardly")
    assert of(tmp_path) == []
    deaf = "import signal, subprocess, sys, time; signal.signal(15, signal.SIG_IGN); print('deaf')\n"
    deaf += "subprocess.Popen([sys.executable, '-c', 'import signal, time; signal.signal(15, 1); time.sleep(600)'])\n"
    launcher.launch(spec(tmp_path, deaf + "time.sleep(600)", "deaf"))
    wait(lambda: launcher.logs("deaf") == "deaf")
    again = ProcessLauncher(tmp_path / "jobs")
    assert again.status("deaf").state == "running"
    again.cancel("deaf")
    wait(lambda: of(tmp_path) == [])
    assert launcher.status("deaf").state == "lost"


def test_the_id_of_another_process_is_left_alone(tmp_path: Path) -> None:
    launcher = ProcessLauncher(tmp_path / "jobs")
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        (tmp_path / "jobs/a-job").mkdir(parents=True)
        (tmp_path / "jobs/a-job/process.json").write_text(f'{{"pid": {bystander.pid}, "started": 1000.0}}')
        assert launcher.status("a-job").state == "lost"
        launcher.cancel("a-job")
        assert bystander.poll() is None
    finally:
        os.killpg(bystander.pid, 9)
        bystander.wait(10)


def test_what_cannot_run_is_said(tmp_path: Path) -> None:
    launcher = ProcessLauncher(tmp_path / "jobs")
    with pytest.raises(ServiceError, match="does not exist"):
        launcher.launch(spec(tmp_path / "nowhere", ""))
    launcher.launch(JobSpec("missing", ["no-such-program"], tmp_path))
    wait(lambda: launcher.status("missing").state == "exited")
    assert launcher.status("missing").exit_code == 127
    assert "no-such-program" in launcher.logs("missing")
