"""The circle in containers, and the containers themselves: each is made of exactly what the real engine asked for."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tidemill.runtime.capture.reading import read_capture, read_labels

from tests.support.attacks import access, artifacts, forgeries, gate, odd_http, s3_gateway
from tests.support.docker import docker_daemon
from tests.support.docker_platform import DockerPlatform
from tests.support.platform import wait_for
from tests.support.scenario import ask, circle, ready, standing

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400), pytest.mark.slow]

PUBLIC = {"lakefs", "mlflow", "serving-flights", "prometheus", "alertmanager"}
SERVICES = {*PUBLIC, "postgres", "validation", "runner", "retraining", "monitor"}

# Name, mode, owner and value of each. To begin a program in a container takes a while: one tells of all.
_LIST_SECRETS = """
for path in /run/tidemill/secrets/*; do
  if [ -f "$path" ]; then echo "${path##*/} $(stat -c '%a %u' "$path") $(cat "$path")"; fi
done
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerPlatform]:
    """The flights team in containers of one daemon; it ends with this module, since it needs much of the machine."""
    with docker_daemon() as daemon, standing(DockerPlatform(tmp_path_factory.mktemp("docker"), daemon)) as running:
        yield running


def all_healthy(platform: DockerPlatform) -> bool:
    states = {name: container.attrs["State"] for name, container in platform.containers().items()}
    return all(state["Running"] and state["Health"]["Status"] == "healthy" for state in states.values())


def back(platform: DockerPlatform) -> None:
    """Wait until every container is healthy and the model serves."""
    wait_for("all containers to be healthy", lambda: all_healthy(platform) or None, 180)
    wait_for("the model to serve", lambda: (_code(platform) == 200) or None, 120)


def _code(platform: DockerPlatform) -> int:
    try:
        return ready(platform)["code"]
    except httpx.HTTPError:
        return 0


test_circle = circle

# The attacks that apply to containers; only public services have ports.
test_no_credentials_and_odd_ones = access.no_credentials_and_odd_ones
test_secrets_of_other_services = access.secrets_of_other_services
test_pages_of_other_sites = access.pages_of_other_sites
test_foreign_host_headers = access.foreign_host_headers
test_open_paths_of_lakefs = access.open_paths_of_lakefs
test_operations_of_lakefs = access.operations_of_lakefs
test_s3_gateway = s3_gateway.s3_gateway
test_around_the_gate = gate.around_the_gate
test_forged_gate = gate.forged_gate
test_forged_alerts = forgeries.alerts
test_forged_labels = forgeries.labels
test_broken_requests = odd_http.broken_requests
test_smuggled_requests = odd_http.smuggled_requests
test_floods = odd_http.floods
test_slow_connections = odd_http.slow_connections
test_bodies_for_the_model = odd_http.bodies_for_the_model
test_places_of_artifacts = artifacts.places_of_artifacts


def test_every_container_is_healthy_and_held_to_what_was_recorded(platform: DockerPlatform) -> None:
    recorded, containers = platform.recorded(), platform.containers()
    assert set(recorded) == set(containers) == SERVICES
    assert all_healthy(platform)
    for name, container in containers.items():
        said, host, config = recorded[name], container.attrs["HostConfig"], container.attrs["Config"]
        assert (host["Memory"], host["MemorySwap"]) == (said["memory"] * 2**20, said["memorySwap"] * 2**20), name
        assert host["NanoCpus"] == float(said["cpus"]) * 1e9
        assert 0 < host["PidsLimit"] <= 4096
        assert (host["ReadonlyRootfs"], host["Init"], host["Privileged"]) == (True, True, False)
        assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], None)
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert config["User"] == said["user"]
        assert config["Healthcheck"]["Test"] == said["healthcheck"]["tests"]
        mounts = {(mount["Name"], mount["Destination"], mount["RW"]) for mount in container.attrs["Mounts"]}
        assert mounts == {(it["source"], it["target"], not it.get("readOnly")) for it in said["mounts"]}
        assert not host["Binds"], "nothing of this machine is mounted, the daemon's socket least of all"


def test_a_process_is_what_its_container_may_be(platform: DockerPlatform) -> None:
    for name in sorted(SERVICES):
        status = dict(line.split(":\t", 1) for line in platform.inside(name, "cat", "/proc/1/status").splitlines())
        number = "999" if name == "postgres" else "10001"
        assert status["Uid"].split() == [number] * 4, name
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        refused = platform.containers()[name].exec_run(["/bin/sh", "-c", "echo x > /usr/mine"])
        assert b"Read-only" in refused.output


def test_secrets_are_read_by_their_service_alone_and_not_told_by_the_daemon(platform: DockerPlatform) -> None:
    values = {path.name: path.read_text().strip() for path in platform.root.secrets.iterdir() if path.is_file()}
    assert len(values) >= 15
    recorded = platform.recorded()
    held: dict[str, dict[str, list[str]]] = {}
    for name, container in platform.containers().items():
        told = json.dumps(container.attrs)
        assert not [secret for secret, value in values.items() if value in told], name
        assert not [secret for secret, value in values.items() if value in json.dumps(recorded[name])], name
        listed = platform.inside(name, "/bin/sh", "-c", _LIST_SECRETS)
        held[name] = {secret: rest for secret, *rest in map(str.split, listed.splitlines())}
        owner = recorded[name]["user"].partition(":")[0]
        assert held[name] == {secret: ["400", owner, values[secret]] for secret in held[name]}, name
        paths = [f"/run/tidemill/secrets/{secret}" for secret in held[name] or ("any",)]
        stranger = container.exec_run(["cat", *paths], user="12345:12345")
        assert stranger.exit_code != 0
        assert not [secret for secret in held[name] if values[secret].encode() in stranger.output], name
    assert set(held["serving-flights"]) == {"serving-flights-key", "mlflow-serving"}, "it has no key of the lake"
    assert len([name for name in held if held[name]]) > 5, "they were looked for where they are not"


def test_what_is_published_is_on_the_loopback_interface_and_the_rest_is_not(platform: DockerPlatform) -> None:
    published: dict[str, list[tuple[str, int]]] = {}
    for name, container in platform.containers().items():
        bound = [one for ports in container.attrs["NetworkSettings"]["Ports"].values() for one in ports or ()]
        published[name] = [(one["HostIp"], int(one["HostPort"])) for one in bound]
    assert {name for name, ports in published.items() if ports} == PUBLIC
    assert {address for ports in published.values() for address, _ in ports} == {"127.0.0.1"}
    wanted = {port for ports in published.values() for _, port in ports}
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port in wanted
    }
    assert listening == {("127.0.0.1", port) for port in wanted}


def test_only_what_is_published_or_trains_is_on_a_network_which_leads_out(platform: DockerPlatform) -> None:
    stack = f"tidemill-{platform.stack}"
    networks = {it.name: it for it in platform.sdk.networks.list(filters={"label": f"tidemill.stack={platform.stack}"})}
    assert {name: it.attrs["Internal"] for name, it in networks.items()} == {
        f"{stack}-private": True, f"{stack}-edge": False,
    }  # fmt: skip
    for name, container in platform.containers().items():
        joined = set(container.attrs["NetworkSettings"]["Networks"])
        out = {f"{stack}-edge"} if name in {*PUBLIC, "runner"} else set()
        assert joined == {f"{stack}-private"} | out, name


def test_what_was_captured_is_in_its_volume(platform: DockerPlatform, tmp_path: Path) -> None:
    request = ask(platform)["request_id"]
    with platform.client("serving-flights", secret="serving-flights-key") as client:
        label = {"request_id": request, "row": 0, "label": 1}
        assert client.post("/labels", json={"labels": [label]}).is_success

    def found() -> pa.Table | None:
        # The monitor, which mounts the same volume, is asked for it.
        platform.copy_out("monitor", "/data/capture-flights", tmp_path)
        captured = read_capture(tmp_path / "capture-flights")
        if captured is None:
            return None
        mine = captured.filter(pc.field("request_id") == request)
        return mine if mine.num_rows else None

    captured = wait_for("the request to be captured", found, 60)
    assert captured["version"].to_pylist() == [ready(platform)["version"]]
    labels = read_labels(tmp_path / "capture-flights")
    assert labels.filter(pc.field("request_id") == request)["label"].to_pylist() == [1.0]
    (mount,) = [
        mount
        for mount in platform.containers()["serving-flights"].attrs["Mounts"]
        if mount["Destination"] == "/data/capture-flights"
    ]
    assert (mount["Type"], mount["Name"]) == ("volume", f"tidemill-{platform.stack}-capture-flights")


@pytest.mark.parametrize("service", ["serving-flights", "lakefs", "postgres"])
def test_a_container_which_is_killed_from_outside_is_back_and_serves(platform: DockerPlatform, service: str) -> None:
    before, answer = platform.running(), ask(platform)["predictions"]
    container = platform.containers()[service]
    # Not by the daemon, which would take it for a wish.
    os.kill(container.attrs["State"]["Pid"], signal.SIGKILL)
    wait_for(f"{service} to start again", lambda: platform.running()[service] != before[service] or None, 60)
    back(platform)
    after = platform.running()
    assert {name for name in before if after[name] != before[name]} == {service}
    assert {name: one[0] for name, one in after.items()} == {name: one[0] for name, one in before.items()}
    assert ask(platform)["predictions"] == answer


def test_data_outlives_its_servers(platform: DockerPlatform) -> None:
    kept = held(platform)
    for service in ("postgres", "lakefs", "mlflow", "serving-flights"):
        platform.operations().restart(service)
    back(platform)
    assert held(platform) == kept


def test_stop_and_start(platform: DockerPlatform) -> None:
    kept, operations = held(platform), platform.operations()
    assert operations.stop() == len(SERVICES)
    assert {state.state for state in operations.services()} == {"stopped"}
    assert not any(container.attrs["State"]["Running"] for container in platform.containers().values())
    operations.start()
    back(platform)
    assert held(platform) == kept
    assert {state.state for state in operations.services()} == {"running"}


def test_up_makes_a_removed_container_again_changes_limits_in_place_and_touches_no_other(
    platform: DockerPlatform,
) -> None:
    before = platform.running()
    platform.containers()["monitor"].remove(force=True)
    platform.configure(services={"runner": {"memory_mb": 1500, "cpus": 1.5, "processes": 500}})
    platform.check("up", "--yes", "--stack", platform.stack)
    back(platform)
    after = platform.running()
    assert {name for name in before if after[name] != before[name]} == {"monitor"}
    host = platform.containers()["runner"].attrs["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (1500 * 2**20, 1_500_000_000, 500)


def held(platform: DockerPlatform) -> dict[str, Any]:
    """Return what the lake and the registry hold, and how much was captured."""
    key = (platform.secret("lakefs-key-id"), platform.secret("lakefs-secret"))
    with httpx.Client(base_url=platform.url("lakefs"), auth=key, timeout=60) as lake:
        branch = lake.get("/api/v1/repositories/flights/branches/main").raise_for_status().json()
        log = lake.get("/api/v1/repositories/flights/refs/main/commits").raise_for_status().json()
    with platform.client("mlflow", user="admin", secret="mlflow-admin") as registry:
        path = "/api/2.0/mlflow/registered-models/get"
        model = registry.get(path, params={"name": "flights"}).raise_for_status().json()["registered_model"]
    return {
        "lake": branch["commit_id"],
        "commits": [commit["id"] for commit in log["results"]],
        "aliases": model["aliases"],
        "serving": ready(platform)["version"],
    }
