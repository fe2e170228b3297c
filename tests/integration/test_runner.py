"""The runner as a process of its own, asked by the launcher of the retraining service."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tidemill.runtime.common.errors import ServiceError, UnreachableError
from tidemill.runtime.retraining.jobs.launcher import JobSpec
from tidemill.runtime.retraining.jobs.runner import RunnerLauncher

from tests.support.services import Service

pytestmark = pytest.mark.integration

TRAIN = (
    "import os, sys; print(os.environ['TIDEMILL_MODEL'], os.environ['TIDEMILL_RUNTIME'], len(os.environ)); sys.exit({})"
)


def wait(ask: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ask():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Service]:
    code = tmp_path / "code"
    code.mkdir()
    trainings = [
        {"model": "boats", "command": ["python", "-c", TRAIN.format(0)], "code": str(code)},
        {"model": "slow", "command": ["python", "-c", "import time; time.sleep(600)"], "code": str(code)},
    ]
    settings = {"state": str(tmp_path / "state"), "runtime": str(tmp_path / "runtime.json"), "trainings": trainings}
    service = Service("retraining.runner", tmp_path / "runner", settings)
    service.start()
    yield service
    service.stop()


@pytest.fixture
def launcher(runner: Service) -> Iterator[RunnerLauncher]:
    made = RunnerLauncher(runner.url, runner.folder / "token")
    yield made
    made.close()


def spec(tmp_path: Path, model: str, job: str, *, exit_code: int = 0, argv: list[str] | None = None) -> JobSpec:
    command = argv or ["python", "-c", TRAIN.format(exit_code)]
    return JobSpec(job, command, tmp_path / "code", {"TIDEMILL_MODEL": model, "LD_PRELOAD": "/evil.so"})


def test_an_allowed_training_runs_once_with_an_environment_of_the_runner(
    tmp_path: Path, runner: Service, launcher: RunnerLauncher
) -> None:
    assert launcher.status("job-1").state == "unknown"
    assert launcher.launch(spec(tmp_path, "boats", "job-1")) == "job-1"
    launcher.launch(spec(tmp_path, "boats", "job-1"))
    wait(lambda: launcher.status("job-1").state == "exited")
    assert launcher.status("job-1").exit_code == 0
    said = launcher.logs("job-1").splitlines()
    assert len(said) == 1, "two launches of one job ran it once"
    assert said[0].startswith(f"boats {tmp_path / 'runtime.json'} ")
    assert "job-1" in launcher.where("job-1")


@pytest.mark.parametrize(
    ("model", "argv"),
    [("boats", ["sh", "-c", "id"]), ("slow", None), ("unknown", None), ("", None)],
    ids=["another command", "another model's", "no such model", "no model"],
)
def test_nothing_else_is_run(tmp_path: Path, launcher: RunnerLauncher, model: str, argv: list[str] | None) -> None:
    with pytest.raises(ServiceError, match=r"403.*not in the runner's settings"):
        launcher.launch(spec(tmp_path, model, "job-2", argv=argv))
    assert launcher.status("job-2").state == "unknown"
    assert not (tmp_path / "state/jobs/job-2").exists()


def test_a_training_is_ended(tmp_path: Path, launcher: RunnerLauncher) -> None:
    launcher.launch(spec(tmp_path, "slow", "job-3", argv=["python", "-c", "import time; time.sleep(600)"]))
    wait(lambda: launcher.status("job-3").started is not None)
    launcher.cancel("job-3")
    assert launcher.status("job-3").state != "running"


def test_a_training_outlives_who_asked_for_it_and_the_runner_too(
    tmp_path: Path, runner: Service, launcher: RunnerLauncher
) -> None:
    launcher.launch(spec(tmp_path, "slow", "job-4", argv=["python", "-c", "import time; time.sleep(600)"]))
    wait(lambda: launcher.status("job-4").started is not None)
    runner.stop()
    with pytest.raises(UnreachableError, match="does not answer"):
        launcher.status("job-4")
    runner.start()
    assert launcher.status("job-4").state == "running"
    launcher.cancel("job-4")


def test_who_has_no_token_gets_nothing(runner: Service) -> None:
    for token in ("", "wrong"):
        with runner.client(token) as client:
            for method, path in (
                ("PUT", "/jobs/x"),
                ("GET", "/jobs/x"),
                ("GET", "/jobs/x/logs"),
                ("DELETE", "/jobs/x"),
            ):
                body = {"model": "boats", "argv": [], "cwd": "/"} if method == "PUT" else None
                assert client.request(method, path, json=body).status_code == 401


@pytest.mark.parametrize("job", ["..%2F..%2Fx", "a.b", "-x", "x" * 200])
def test_an_id_is_a_name_of_its_own(runner: Service, job: str) -> None:
    with runner.client() as client:
        assert client.get(f"/jobs/{job}").status_code in (404, 422)
        answer = client.put(f"/jobs/{job}", json={"model": "boats", "argv": ["python"], "cwd": "/"})
        assert answer.status_code in (403, 404, 405, 422)


def test_a_runner_which_is_not_there_is_unreachable(tmp_path: Path, runner: Service) -> None:
    runner.stop()
    launcher = RunnerLauncher(runner.url, runner.folder / "token")
    with pytest.raises(UnreachableError):
        launcher.launch(spec(tmp_path, "boats", "job-5"))
    launcher.close()
    with pytest.raises(httpx.TransportError):
        runner.get("/healthz")
