"""Makes, with Docker's SDK and command, what the engine asks the vendor's providers for: networks, images, containers.

The inputs are those which the real engine hands to a provider. What is done with each of them is what the vendor's
provider does, as far as the program uses it; an input which is not known here is an error, so that nothing a container
is declared with is dropped in silence.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import docker
import docker.errors
from docker.types import EndpointConfig, LogConfig, Mount, Ulimit

Inputs = Mapping[str, Any]
Outputs = dict[str, Any]

CONTAINER = "docker:index/container:Container"
NETWORK = "docker:index/network:Network"
REMOTE_IMAGE = "docker:index/remoteImage:RemoteImage"
BUILT_IMAGE = "docker-build:index:Image"
BUILD_OPTIONS = "STANDIN_BUILD_OPTIONS"
"""Variable with further options of `docker build`, separated by spaces."""

_MB = 1024 * 1024
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
# Neither says anything about what is made.
_MEANINGLESS = {
    "buildOnPreview",
    "push",
    "load",
    "keepLocally",
    "mustRun",
    "wait",
    "waitTimeout",
    "destroyGraceSeconds",
}


def connect() -> docker.DockerClient:
    return docker.from_env(timeout=600)


def make(token: str, inputs: Inputs) -> tuple[str, Outputs]:
    """Make what `inputs` say; return its id and further outputs."""
    makers: dict[str, Callable[[docker.DockerClient, dict[str, Any]], tuple[str, Outputs]]] = {
        CONTAINER: _container,
        NETWORK: _network,
        REMOTE_IMAGE: _pull,
        BUILT_IMAGE: _build,
    }
    wanted = {key: value for key, value in inputs.items() if not key.startswith("__")}
    made = makers[token](connect(), wanted)
    left = set(wanted) - _MEANINGLESS
    assert not left, f"{token}: nothing is known of {', '.join(sorted(left))}"
    return made


def exists(token: str, id_: str) -> bool:
    client = connect()
    try:
        if token == CONTAINER:
            client.api.inspect_container(id_)
        elif token == NETWORK:
            client.api.inspect_network(id_)
        else:
            client.api.inspect_image(id_)
    except docker.errors.NotFound:
        return False
    return True


def change(token: str, id_: str, inputs: Inputs) -> Outputs:
    """Rebuild an image, or change the limits of a container in place; return further outputs."""
    if token != CONTAINER:
        return make(token, inputs)[1]
    api: Any = connect().api
    limits = {"Memory": inputs["memory"] * _MB, "MemorySwap": inputs["memorySwap"] * _MB}
    # The SDK's `update_container` does not know this way of saying how many cores.
    api._result(api._post_json(api._url("/containers/{0}/update", id_), data={**limits, "NanoCpus": _cores(inputs)}))
    return {}


def remove(token: str, id_: str, inputs: Inputs) -> None:
    """Remove a container or network; images stay, for the next test to find."""
    client = connect()
    try:
        if token == CONTAINER:
            client.api.stop(id_, timeout=inputs.get("destroyGraceSeconds") or 10)
            client.api.remove_container(id_, v=True, force=True)
        elif token == NETWORK:
            client.api.remove_network(id_)
    except docker.errors.NotFound:
        return


def _network(client: docker.DockerClient, wanted: dict[str, Any]) -> tuple[str, Outputs]:
    made = client.api.create_network(
        wanted.pop("name"),
        driver=wanted.pop("driver"),
        internal=wanted.pop("internal"),
        labels=_labels(wanted.pop("labels")),
        check_duplicate=True,
    )
    return made["Id"], {}


def _pull(client: docker.DockerClient, wanted: dict[str, Any]) -> tuple[str, Outputs]:
    name = wanted.pop("name")
    try:
        image = client.images.get(name)
    except docker.errors.ImageNotFound:
        image = client.images.pull(name)
    return str(image.id), {"imageId": image.id}


def _build(client: docker.DockerClient, wanted: dict[str, Any]) -> tuple[str, Outputs]:
    tags = wanted.pop("tags")
    context = wanted.pop("context")["location"]
    argv = ["docker", "build", "--quiet", "--file", wanted.pop("dockerfile")["location"]]
    assert wanted.pop("network", None) in (None, "default")
    argv += [part for tag in tags for part in ("--tag", tag)]
    argv += [part for pair in wanted.pop("buildArgs").items() for part in ("--build-arg", "=".join(pair))]
    argv += [part for pair in wanted.pop("labels").items() for part in ("--label", "=".join(pair))]
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (wanted.pop("secrets", None) or {}).items():
            path = Path(folder) / name
            path.write_text(text)
            argv += ["--secret", f"id={name},src={path}"]
        argv += [*os.environ.get(BUILD_OPTIONS, "").split(), context]
        environ = {**os.environ, "DOCKER_BUILDKIT": "1"}
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=1500)
    assert done.returncode == 0, done.stderr[-4000:]
    image = client.images.get(tags[0])
    return str(image.id), {"digest": image.id, "ref": tags[0]}


def _container(client: docker.DockerClient, wanted: dict[str, Any]) -> tuple[str, Outputs]:
    api = client.api
    # The vendor's provider takes a container from the default network to these; a daemon for tests has no default one.
    networks = wanted.pop("networksAdvanced")
    ends = {network["name"]: EndpointConfig(api._version, aliases=network.get("aliases")) for network in networks}
    first = networks[0]["name"]
    ports = wanted.pop("ports", None) or []
    check = wanted.pop("healthcheck")
    host = api.create_host_config(
        network_mode=first,
        mounts=[_mount(mount) for mount in wanted.pop("mounts")],
        tmpfs=wanted.pop("tmpfs"),
        port_bindings={_port(port): (port["ip"], port["external"]) for port in ports},
        restart_policy={"Name": wanted.pop("restart")},
        init=wanted.pop("init"),
        read_only=wanted.pop("readOnly"),
        privileged=wanted.pop("privileged"),
        cap_drop=wanted.pop("capabilities")["drops"],
        security_opt=wanted.pop("securityOpts"),
        mem_limit=wanted.pop("memory") * _MB,
        memswap_limit=wanted.pop("memorySwap") * _MB,
        nano_cpus=_cores({"cpus": wanted.pop("cpus")}),
        ulimits=[Ulimit(**ulimit) for ulimit in wanted.pop("ulimits", None) or []],
        log_config=LogConfig(type=wanted.pop("logDriver"), config=wanted.pop("logOpts")),
    )
    name = wanted.pop("name")
    made = api.create_container(
        image=wanted.pop("image"),
        name=name,
        command=wanted.pop("command"),
        entrypoint=wanted.pop("entrypoints", None),
        environment=wanted.pop("envs"),
        hostname=wanted.pop("hostname"),
        user=wanted.pop("user"),
        working_dir=wanted.pop("workingDir", None),
        labels=_labels(wanted.pop("labels")),
        ports=[(port["internal"], port["protocol"]) for port in ports],
        healthcheck={
            "test": check["tests"],
            "interval": _nanoseconds(check["interval"]),
            "timeout": _nanoseconds(check["timeout"]),
            "retries": check["retries"],
            "start_period": _nanoseconds(check["startPeriod"]),
        },
        stop_timeout=wanted.pop("stopTimeout"),
        host_config=host,
        networking_config=api.create_networking_config({first: ends[first]}),
    )["Id"]
    try:
        for network in networks[1:]:
            api.connect_container_to_network(made, network["name"], aliases=network.get("aliases"))
        api.start(made)
        if wanted["wait"]:
            _wait(api, made, wanted["waitTimeout"])
    except BaseException as error:
        said = api.logs(made, tail=40).decode(errors="replace")
        api.remove_container(made, v=True, force=True)
        raise RuntimeError(f"{name}: {error}\n{said}") from error
    return made, {}


def _wait(api: Any, container: str, seconds: int) -> None:
    """Wait until it is healthy, which is when the vendor's provider calls it made."""
    end = time.monotonic() + seconds
    while (state := api.inspect_container(container)["State"])["Health"]["Status"] != "healthy":
        log = state["Health"]["Log"] or [{"Output": ""}]
        assert state["Health"]["Status"] != "unhealthy", f"is unhealthy: {log[-1]['Output'][-500:]}"
        assert time.monotonic() < end, f"is {state['Health']['Status']} after {seconds} s: {log[-1]['Output'][-500:]}"
        time.sleep(0.5)


def _cores(inputs: Inputs) -> int:
    return int(float(inputs["cpus"]) * 1e9)


def _mount(mount: Inputs) -> Mount:
    as_it_is = bool(mount.get("volumeOptions", {}).get("noCopy"))
    known = {"target", "source", "type", "readOnly", "volumeOptions"}
    assert set(mount) <= known, f"nothing is known of {', '.join(set(mount) - known)} of a mount"
    return Mount(
        mount["target"], mount["source"], type=mount["type"], read_only=bool(mount.get("readOnly")), no_copy=as_it_is
    )


def _port(port: Inputs) -> str:
    return f"{port['internal']}/{port['protocol']}"


def _labels(labels: list[dict[str, str]]) -> dict[str, str]:
    return {label["label"]: label["value"] for label in labels}


def _nanoseconds(text: str) -> int:
    """Return a duration as Go writes it in nanoseconds."""
    return int(sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)(ms|h|m|s)", text)) * 1e9)
