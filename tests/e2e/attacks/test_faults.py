"""Faults of the running platform on this machine: killed and stopped services, a full disk, a clock that jumps."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest
from tidemill.runtime.capture.reading import read_capture
from tidemill.runtime.common.ids import time_of

from tests.support.attacks import wire
from tests.support.attacks.doors import doors
from tests.support.attacks.twin import Clock, twin
from tests.support.drill import Drill
from tests.support.platform import RunningPlatform, wait_for
from tests.support.scenario import FLIGHT, ask, ready, retrainings

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]

_STOP_SECONDS = 30
_DAY = 86_400


def state_of(platform: RunningPlatform) -> dict[str, Any]:
    """Return what the platform must still know after a fault."""
    key = (platform.secret("lakefs-key-id"), platform.secret("lakefs-secret"))
    with httpx.Client(base_url=platform.url("lakefs"), auth=key, timeout=60) as lake:
        branch = lake.get("/api/v1/repositories/flights/branches/main").raise_for_status().json()
    with platform.client("mlflow", user="admin", secret="mlflow-admin") as registry:
        model = registry.get("/api/2.0/mlflow/registered-models/get", params={"name": "flights"}).raise_for_status()
    with platform.client("alertmanager", user="admin", secret="alertmanager-admin") as client:
        silences = client.get("/api/v2/silences").raise_for_status().json()
    return {
        "lake": branch["commit_id"],
        "aliases": model.json()["registered_model"]["aliases"],
        "retrainings": [retraining["id"] for retraining in retrainings(platform)],
        "silences": sorted(silence["id"] for silence in silences),
        "serving": ready(platform)["version"],
        "answer": ask(platform)["predictions"],
    }


def settled(platform: RunningPlatform) -> dict[str, Any]:
    """Return the state once every service answers and the model serves."""
    for door in doors(platform):
        assert wire.answers(platform.url(door.service), door.health, 60), door.service
    wait_for("the model to serve", lambda: _or_none(lambda: ready(platform)["code"] == 200), 60, 0.2)
    return wait_for("the state", lambda: _or_none(lambda: state_of(platform)), 60, 0.5)


def _or_none(ask_it: Any) -> Any:
    try:
        return ask_it() or None
    except httpx.HTTPError:
        return None


def test_killed_services(platform: RunningPlatform, drill: Drill) -> None:
    before = settled(platform)
    with drill("faults", "kill -9 of each service") as attack:
        for service in platform.services():
            pids = platform.pids()
            os.kill(pids[service], signal.SIGKILL)
            if service != "serving-flights":
                attack.tried(f"{service}: the model answers", ask(platform)["predictions"] == before["answer"])
            wait_for(f"{service} to start again", lambda s=service, p=pids: platform.pids()[s] != p[s], 60, 0.1)
            (door,) = [door for door in doors(platform) if door.service == service]
            attack.tried(f"{service}: answers", wire.answers(platform.url(service), door.health, 60))
            wait_for("the model to serve", lambda: _or_none(lambda: ready(platform)["code"] == 200), 60, 0.1)
            others = {name for name, pid in platform.pids().items() if pids[name] != pid} - {service}
            attack.tried(f"{service}: no other restarts", not others, others)
    with drill("faults", "kill -9 of all services together") as attack:
        pids = platform.pids()
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
        wait_for("all to start again", lambda: not set(platform.pids().values()) & set(pids.values()), 60, 0.1)
        after = settled(platform)
        for name, value in before.items():
            attack.tried(f"the same {name}", after[name] == value, after[name])
        wait_for("status to be healthy", platform.all_alive, 60)
        platform.assert_one_of_each()


@pytest.mark.slow
@pytest.mark.parametrize(
    "stopped",
    [("lakefs", "mlflow", "validation", "monitor"), ("serving-flights", "prometheus", "alertmanager", "retraining")],
    ids=["data", "serving"],
)
def test_stopped_services(platform: RunningPlatform, drill: Drill, stopped: tuple[str, ...]) -> None:
    before, pids = settled(platform), platform.pids()
    others = [door for door in doors(platform) if door.service not in stopped]
    with drill("faults", f"SIGSTOP of {', '.join(stopped)}") as attack:
        started = time.monotonic()
        with _stopped(pids[name] for name in stopped):
            status = platform.status()
            problems = {service["name"] for service in status["services"] if not service["healthy"]}
            attack.tried("status names them", problems == set(stopped), problems)
            while time.monotonic() < started + _STOP_SECONDS:
                for door in others:
                    attack.tried(f"{door.service} answers", wire.answers(platform.url(door.service), door.health, 5))
                if "serving-flights" not in stopped:
                    attack.tried("the model answers", ask(platform)["predictions"] == before["answer"])
                time.sleep(2)
        after = settled(platform)
        attack.tried("no restart", platform.pids() == pids)
        for name, value in before.items():
            attack.tried(f"the same {name}", after[name] == value, after[name])
        attack.tried("status is healthy", wait_for("health", platform.all_alive, 60) == pids)


@pytest.mark.slow
def test_full_disk(platform: RunningPlatform, drill: Drill) -> None:
    """No file of any service can grow: services acknowledge only what they stored, and are healthy afterwards."""
    before = settled(platform)
    pids = platform.pids()
    mine = ask(platform)["request_id"]
    with drill("faults", "no file can grow") as attack:
        with _full(platform) as processes:
            attack.tried("limited", len(processes) >= len(pids))
            for _ in range(20):
                attack.tried("the model answers", ask(platform)["predictions"] == before["answer"])
            with platform.client("serving-flights", secret="serving-flights-key") as client:
                label = {"labels": [{"request_id": mine, "row": 0, "label": 1}]}
                answer = client.post("/labels", json=label)
                attack.tried("a label is not acknowledged", answer.status_code >= 500, answer.text)
            with platform.client("mlflow", user="admin", secret="mlflow-admin") as client:
                answer = client.post("/api/2.0/mlflow/registered-models/create", json={"name": "full"})
                stored = _or_none(lambda: client.get("/api/2.0/mlflow/registered-models/get?name=full").is_success)
                attack.tried("a model is stored or refused", bool(stored) == answer.is_success, answer.text)
            wait_for("some scrapes and polls", lambda: time.sleep(8) or True, 30)
            attack.tried("the model still answers", ask(platform)["predictions"] == before["answer"])
        with contextlib.suppress(httpx.HTTPError), platform.client("mlflow", user="admin", secret="mlflow-admin") as it:
            it.request("DELETE", "/api/2.0/mlflow/registered-models/delete", json={"name": "full"})
        after = settled(platform)
        for name, value in before.items():
            attack.tried(f"the same {name}", after[name] == value, after[name])
        wait_for("status to be healthy", platform.all_alive, 120)
        with platform.client("serving-flights", secret="serving-flights-key") as client:
            attack.tried("labels are stored again", client.post("/labels", json=label).is_success)


@pytest.mark.slow
def test_full_disk_of_the_capture(platform: RunningPlatform, drill: Drill, tmp_path: Path) -> None:
    """The disk of the capture, a small tmpfs, is full: the model answers, and no row is lost once there is space."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"mount -t tmpfs -o size=16m tmpfs '{disk}' && exec \"$@\""
    mount = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    if subprocess.run([*mount, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let its users mount a file system")
    changes = {
        "capture": {"directory": str(disk / "capture"), "segment_seconds": 0.2},
        "cache": str(tmp_path / "cache"),
    }
    headers = {"Authorization": f"Bearer {platform.secret('serving-flights-key')}"}
    with (
        drill("faults", "a full disk of the capture") as attack,
        twin(platform, "serving-flights", tmp_path / "twin", changes=changes, before=mount) as second,
        httpx.Client(base_url=second.url, headers=headers, timeout=60, trust_env=False) as client,
    ):
        # Only the process and its children see the file system.
        seen = Path(f"/proc/{second.process.pid}/root{disk}")
        filler = seen / "filler"
        with filler.open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space"):
            while True:
                stream.write(b"x" * 65536)
        requests, rows = 20, 200
        for _ in range(requests):
            answer = client.post("/invocations", json={"dataframe_records": [FLIGHT] * rows})
            attack.tried("the model answers", answer.status_code == 200, answer.text)
        label = {"labels": [{"request_id": ask(platform)["request_id"], "row": 0, "label": 1}]}
        sent = client.post("/labels", json=label)
        attack.tried("a label is not acknowledged", sent.status_code >= 500, sent.text)
        wait_for("the log to say so", lambda: "No space left" in second.log, 30, 0.2)
        attack.tried("healthy", client.get("/healthz").status_code == 200)
        filler.unlink()
        wait_for(
            "the rows to be captured", lambda: _metric(client, "tidemill_captured_rows") == requests * rows, 60, 0.2
        )
        kept = read_capture(seen / "capture")
        attack.tried("every row is kept", kept is not None and kept.num_rows == requests * rows)
        attack.tried("labels are stored again", client.post("/labels", json=label).is_success)


@pytest.mark.slow
def test_clock_jump(platform: RunningPlatform, drill: Drill, tmp_path: Path) -> None:
    """The clock of each of the project's services jumps by a year, forward and back, while it works."""
    if shutil.which("cc") is None:
        pytest.skip("this machine has no C compiler for a clock that jumps")
    clock = Clock(tmp_path)
    changes = {
        "capture": {"directory": str(tmp_path / "capture"), "segment_seconds": 0.3}, "cache": str(tmp_path / "cache"),
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        seconds = {
            name: stack.enter_context(twin(platform, name, tmp_path / name, changes=more, variables=clock.variables))
            for name, more in (("serving-flights", changes), ("monitor", {}), ("retraining", {}), ("validation", {}))
        }
        serving = seconds["serving-flights"]
        headers = {"Authorization": f"Bearer {platform.secret('serving-flights-key')}"}
        with (
            drill("faults", "a clock that jumps") as attack,
            httpx.Client(base_url=serving.url, headers=headers, timeout=60, trust_env=False) as client,
        ):
            identifiers: list[str] = []
            expected = ask(platform)["predictions"]
            for shift in (0, 3600, 365 * _DAY, -365 * _DAY, 0):
                clock.jump(shift)
                for _ in range(20):
                    answer = client.post("/invocations", json={"dataframe_records": [FLIGHT]})
                    attack.tried(f"{shift} s: the model answers", answer.json().get("predictions") == expected)
                    identifiers.append(answer.json()["request_id"])
                jumped = time_of(UUID(identifiers[-1])).timestamp() - time.time()
                attack.tried(f"{shift} s: ids do not go back", jumped > shift - 60, jumped)
                label = {"request_id": identifiers[-1], "row": 0, "label": 1}
                attack.tried(f"{shift} s: labels", client.post("/labels", json={"labels": [label]}).is_success)
                time.sleep(3)
                for name, second in seconds.items():
                    attack.tried(f"{shift} s: {name} lives", second.process.poll() is None, second.log[-300:])
                    attack.tried(f"{shift} s: {name} is ready", wire.answers(second.url, "/readyz", 20))
                    attack.tried(f"{shift} s: {name} logs no traceback", "Traceback" not in second.log)
            attack.tried("no id twice", len(set(identifiers)) == len(identifiers))
            captured = wait_for("the capture", lambda: _captured(tmp_path / "capture", len(identifiers)), 30, 0.3)
            attack.tried("all captured once", sorted(captured) == sorted(identifiers), len(captured))
            open_ones = _status(platform, seconds["retraining"].url)
            attack.tried("no training began", open_ones == [one["id"] for one in retrainings(platform)], open_ones)


def _status(platform: RunningPlatform, url: str) -> list[str]:
    headers = {"Authorization": f"Bearer {platform.secret('retraining-token')}"}
    return [one["id"] for one in httpx.get(f"{url}/status", headers=headers, trust_env=False).json()["retrainings"]]


def _captured(folder: Path, rows: int) -> list[str] | None:
    table = read_capture(folder)
    return table["request_id"].to_pylist() if table is not None and table.num_rows >= rows else None


def _metric(client: httpx.Client, name: str) -> float:
    """Return the sum of a metric's series."""
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@contextmanager
def _stopped(pids: Iterator[int]) -> Generator[None]:
    """Stop processes and their children, and let them continue at the end."""
    processes = [process for pid in pids for process in (psutil.Process(pid), *psutil.Process(pid).children(True))]
    try:
        for process in processes:
            process.suspend()
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


@contextmanager
def _full(platform: RunningPlatform) -> Generator[list[psutil.Process]]:
    """Limit the files of all services to their current size, which simulates a full disk."""
    roots = [psutil.Process(pid) for pid in platform.pids().values()]
    processes = [process for root in roots for process in (root, *root.children(recursive=True))]
    try:
        for process in processes:
            process.rlimit(psutil.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        yield processes
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
