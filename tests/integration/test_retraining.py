"""The retraining service with a real lake, a real registry and real jobs; killed where it hurts."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from tidemill.runtime import data, registry
from tidemill.runtime.common.settings import LakeSettings, RegistrySettings
from tidemill.stacks.flights import departures

from tests.support.gate import gated_lake
from tests.support.servers import mlflow_server
from tests.support.services import Service

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

TRAIN = """\
import json, os, pathlib, sys, time
here = pathlib.Path(__file__).parent
with (here / "starts").open("a") as file:
    file.write(os.environ["TIDEMILL_JOB_ID"] + "\\n")
(here / "environment.json").write_text(json.dumps(dict(os.environ)))
print("begun")
while not (here / "go").exists():
    time.sleep(0.05)
if (here / "go").read_text() == "fail":
    sys.exit("no such column")
from tidemill.runtime import training
from sklearn.linear_model import LogisticRegression
with training.run(os.environ["TIDEMILL_MODEL"], code=here) as run:
    frame = run.read().to_pandas()
    features = frame[["hour", "distance"]]
    model = LogisticRegression().fit(features, frame["delayed"])
    run.log_metrics({"roc_auc": 0.7})
    run.log_model(model, features=features)
"""


@dataclass
class Parts:
    folder: Path
    lake: LakeSettings
    registry: RegistrySettings

    def publish(self, month: int) -> str:
        frame = departures.month_frame(month).head(400)
        return data.add(frame, f"flights/main/departures/{month}.parquet", message="a month", lake=self.lake).commit


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    folder = tmp_path_factory.mktemp("retraining")
    with gated_lake(folder / "lake") as lake, mlflow_server(folder / "mlflow") as mlflow:
        access = RegistrySettings(tracking_uri=mlflow.url, username="admin", password_file=mlflow.files["password"])
        parts = Parts(folder, lake.settings, access)
        parts.publish(1)
        yield parts


class Retraining(Service):
    """The service for one model of its own, and the code of that model."""

    def __init__(self, parts: Parts, folder: Path, model: str, **values: Any) -> None:
        self.code = folder / "code"
        self.code.mkdir(parents=True)
        (self.code / "train.py").write_text(TRAIN)
        self.model = model
        self.parts = parts
        access = {"lake": parts.lake.model_dump(mode="json"), "registry": parts.registry.model_dump(mode="json")}
        address = "flights/main/departures"
        runtime = {**access, "stack": "flights-dev", "models": {model: {"data": address, "target": "delayed"}}}
        (folder / "runtime.json").write_text(json.dumps(runtime))
        trained = {
            "name": model, "code": str(self.code), "command": ["python", "train.py"], "data": address,
            "promote": {"metric": "roc_auc", "at_least": 0.6}, "cooldown": 3600, **values,
        }  # fmt: skip
        settings = {"runtime": str(folder / "runtime.json"), "state": str(folder / "state"), "models": [trained]}
        super().__init__("retraining", folder / "service", access | settings)
        registry.connect(parts.registry).create_registered_model(model)

    def go(self, how: str = "well") -> None:
        hidden = self.code / ".go"
        hidden.write_text(how)
        hidden.rename(self.code / "go")

    @property
    def starts(self) -> list[str]:
        file = self.code / "starts"
        return file.read_text().split() if file.exists() else []

    def alert(self, reason: str, status: str = "firing", **labels: str) -> dict[str, Any]:
        alert = {
            "status": status,
            "labels": {"alertname": "Tidemill", "model": self.model, "reason": reason, **labels},
            "annotations": {"summary": "something moved"},
            "startsAt": "2026-01-01T00:00:00Z",
            "endsAt": "2026-01-01T01:00:00Z" if status == "resolved" else "0001-01-01T00:00:00Z",
            "generatorURL": "http://127.0.0.1:9090/graph",
            "fingerprint": "c0ffee",
        }
        body = {
            "version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0, "status": status, "receiver": "retraining",
            "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://127.0.0.1:9093",
            "alerts": [alert],
        }  # fmt: skip
        with self.client() as client:
            answer = client.post("/alerts", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["alerts"][0]

    @property
    def retrainings(self) -> list[dict[str, Any]]:
        return self.get("/status").json()["retrainings"]

    def until(self, state: str, seconds: float = 90) -> dict[str, Any]:
        return self.wait(state, lambda: (retraining := self.retrainings[0])["state"] == state and retraining, seconds)

    def begun(self, number: int = 1) -> psutil.Process:
        """Wait until the job number `number` runs; return its process."""
        self.wait("a job", lambda: len(self.starts) >= number)
        record = json.loads((self.folder.parent / "state/jobs" / self.starts[-1] / "process.json").read_text())
        return psutil.Process(record["pid"])


@pytest.fixture
def service(parts: Parts, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Retraining]:
    made = Retraining(parts, tmp_path, request.function.__name__.replace("_", "-"), **getattr(request, "param", {}))
    made.start()
    try:
        yield made
    finally:
        made.stop()


def test_who_does_not_bring_the_token_is_refused(service: Retraining) -> None:
    for token in ("", "wrong"):
        with service.client(token) as client:
            assert client.post("/alerts", json={"version": "4", "alerts": []}).status_code == 401
            assert client.post("/alerts", content=b"not json").status_code == 401
            assert client.get("/status").status_code == 401
            assert client.get("/metrics").status_code == 401
            assert client.get("/healthz").status_code == 200
    with service.client() as client:
        for body in ({}, {"version": "4", "alerts": [{"status": "odd", "labels": {}}]}, {"version": "3", "alerts": []}):
            assert client.post("/alerts", json=body).status_code == 422
        assert client.post("/alerts", content=b"x" * 1_100_000).status_code == 413
        assert client.post("/alerts", content=b"not json").status_code == 422
    assert service.retrainings == []


def test_an_empty_token_file_opens_nothing(parts: Parts, tmp_path: Path) -> None:
    service = Retraining(parts, tmp_path, "empty")
    (service.folder / "token").write_text("\n")
    with pytest.raises(AssertionError, match="the secret is empty"):
        service.start()


def test_a_model_is_trained_though_the_service_is_killed(service: Retraining) -> None:
    assert service.alert("no-champion")["queued"]
    job = service.begun()
    assert not service.alert("no-champion")["queued"]

    service.kill()
    service.start()
    assert service.until("running")["job"] == service.starts[0]
    assert not service.alert("no-champion")["queued"]

    service.kill()
    service.go()
    job.wait(90)
    service.start()
    retraining = service.until("done")
    assert len(service.starts) == 1, "one job, whatever happened to the service"
    assert len(service.retrainings) == 1
    assert retraining["verdict"]["accepted"]
    assert (retraining["version"], retraining["attempt"]) == ("1", 1)
    assert Path(retraining["log"]).read_text().startswith("begun")
    champion = registry.serving_version(service.model, registry=service.parts.registry)
    assert champion is not None
    assert champion.version == "1"
    assert champion.tags["tidemill.lake.commit"] == retraining["data_commit"]

    environment = json.loads((service.code / "environment.json").read_text())
    assert environment["TIDEMILL_MODEL"] == service.model
    assert "A_SECRET_OF_THE_SERVICE" not in environment

    # Drift: nothing newer to learn from, so it waits; newer data sets it going.
    assert service.alert("drift", version="1")["queued"]
    assert "waiting for data newer" in service.until("waiting")["detail"]
    commit = service.parts.publish(2)
    retraining = service.until("done")
    assert (retraining["version"], retraining["champion"], retraining["data_commit"]) == ("2", "1", commit)
    previous = registry.serving_version(service.model, "previous", registry=service.parts.registry)
    assert previous is not None
    assert previous.version == "1"
    assert "not before" in service.alert("drift", version="2")["why"], "the cooldown holds"
    service.alert("drift", status="resolved", version="1")
    assert service.retrainings[0]["resolved_at"] == "2026-01-01T01:00:00Z"
    assert len(service.starts) == 2

    # An alert which is late finds a champion.
    assert service.alert("no-champion")["queued"]
    assert "already has a champion" in service.until("done")["detail"]
    metrics = service.metrics()
    for reason in ("no-champion", "drift"):
        series = f'tidemill_retraining_total{{model="{service.model}",outcome="done",reason="{reason}"}}'
        assert metrics[series] == 1.0


@pytest.mark.parametrize("service", [{"backoff": 2.0}], indirect=True)
def test_a_failed_job_says_why_and_is_tried_again_later(service: Retraining) -> None:
    service.go("fail")
    service.alert("no-champion")
    retraining = service.until("failed")
    assert retraining["detail"] == "exit code 1: no such column"
    assert "not before" in service.alert("no-champion")["why"]
    time.sleep(2.0)
    assert service.alert("no-champion")["queued"]
    service.until("failed")
    assert len(service.starts) == 2


def test_a_stop_leaves_nothing_running_and_loses_no_turn(service: Retraining) -> None:
    service.alert("no-champion")
    job = service.begun()
    children = [job, *job.children(recursive=True)]
    assert service.stop() in (0, -15), "uvicorn passes the signal on once it has shut down"
    assert not [process for process in children if process.is_running()]
    service.go("fail")
    service.start()
    retraining = service.until("failed")
    assert retraining["detail"] == "exit code 1: no such column"
    assert (retraining["interruptions"], retraining["attempt"]) == (1, 1)
    assert len(service.retrainings) == 1


def test_a_job_killed_with_all_its_word_is_run_once_more(service: Retraining) -> None:
    service.alert("no-champion")
    job = service.begun()
    os.kill(job.pid, 9)
    again = service.begun(2)
    assert again.pid != job.pid
    assert service.starts == [service.starts[0], f"{service.starts[0]}-2"]
    assert not any(f"{service.code}" in (process.info["cwd"] or "") and process.pid not in _family(again)
                   for process in psutil.process_iter(["cwd"])), "what the lost job had started is ended"  # fmt: skip
    service.go("fail")
    assert service.until("failed")["attempt"] == 2


@pytest.mark.parametrize("service", [{"timeout": 1.0}], indirect=True)
def test_a_job_past_its_time_is_ended(service: Retraining) -> None:
    service.alert("no-champion")
    job = service.begun()
    assert "time limit of 1 s" in service.until("failed")["detail"]
    assert not job.is_running()


def _family(process: psutil.Process) -> set[int]:
    return {process.pid, *(child.pid for child in process.children(recursive=True))}
