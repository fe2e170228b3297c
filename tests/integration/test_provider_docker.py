"""Our resources of Docker, with a real daemon: whose volumes are whose, what is in them, how jobs end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tidemill.components.layout import StackRoot
from tidemill.components.provider.base import Context, NativeResource, Properties
from tidemill.components.provider.docker import daemon as docker_daemon
from tidemill.components.provider.docker.data import Bounds, Files, Scratch, Volume
from tidemill.components.provider.docker.job import Job
from tidemill.components.provider.local.data import Secret
from tidemill.components.targets.docker.operations import DockerOperations
from tidemill.components.targets.docker.settings import DockerSettings
from tidemill.runtime.common.errors import ConfigError, NotFoundError, RefusedError, ServiceError, UnreachableError

from tests.support.docker import Docker, base_image
from tests.support.docker import docker_daemon as a_daemon

pytestmark = [pytest.mark.integration, pytest.mark.slow]

STACK = "quay-test"
# The daemon of a test may be one without any network but the host's; a job without a network has none at all.
SHELL: dict[str, Any] = {"entrypoint": ["/bin/sh", "-ceu"], "user": "10001:10001", "tmpfs": {"/tmp": "rw,size=16m"}}  # noqa: S108


@pytest.fixture(scope="module")
def daemon() -> Iterator[Docker]:
    with a_daemon() as docker:
        environ = {key: value for key, value in docker.environ.items() if key.startswith("DOCKER_")}
        docker_daemon.connect.cache_clear()
        with mock.patch.dict(os.environ, environ):
            yield docker
            docker_daemon.connect().close()
        docker_daemon.connect.cache_clear()


@pytest.fixture(scope="module")
def image(daemon: Docker) -> str:
    return base_image(daemon) or "python:3.11-slim-bookworm"


@pytest.fixture
def client(daemon: Docker) -> Iterator[Any]:
    """The daemon's client; what a test leaves of the stack goes."""
    found = docker_daemon.connect()
    yield found
    for container in found.containers.list(all=True, filters={"label": f"tidemill.stack={STACK}"}):
        container.remove(force=True)
    for volume in found.volumes.list(filters={"label": f"tidemill.stack={STACK}"}):
        volume.remove()


@pytest.fixture
def root(tmp_path: Path) -> StackRoot:
    made = StackRoot(tmp_path / "root")
    make(Secret(), {"root": str(made.path), "name": "token", "format": "token"})
    return made


def context() -> Context:
    return Context(f"urn:pulumi:{STACK}::p::t::n", pytest.fail)


def make(resource: NativeResource, inputs: Properties) -> Properties:
    return resource.create(context(), resource.check({"stack": STACK, **inputs}))[1]


def mounted(*volumes: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"volume": volume, "target": target, "readOnly": target == "/run/tidemill"} for target, volume in volumes]


def run(root: StackRoot, image: str, script: str, **more: Any) -> str:
    """Run `script` in a job, which is forgotten, and return what it prints."""
    name = more.pop("name", "look")
    state = make(Job(), {"root": str(root.path), "name": name, "image": image, "argv": [script], **SHELL, **more})
    Job().delete(context(), state)
    return root.log(name).read_text().strip()


def test_a_volume_belongs_to_the_user_of_the_containers_and_keeps_what_is_in_it(
    client: Any, root: StackRoot, image: str
) -> None:
    made = make(Volume(), {"name": "data", "owner": 10001})
    assert made["volume"] == f"tidemill-{STACK}-data"
    mounts = mounted(("/data", made["volume"]))
    assert (
        run(root, image, "ls -ldn /data | cut -d' ' -f1,3,4; echo kept > /data/x", mounts=mounts)
        == "drwx------ 10001 10001"
    )
    assert make(Volume(), {"name": "data", "owner": 10001}) == made, "what an interrupted run left is adopted"
    assert run(root, image, "cat /data/x", mounts=mounts, name="again") == "kept"
    # One stream: Docker keeps no order between standard output and standard error.
    other = "cat /data/x 2>&1 || echo refused"
    said = run(root, image, other, mounts=mounts, name="other", user="10002:10002")
    assert said == "cat: /data/x: Permission denied\nrefused"


def test_a_volume_of_another_stack_or_of_nobody_is_refused(client: Any) -> None:
    client.volumes.create(f"tidemill-{STACK}-theirs", labels={"tidemill.stack": "other-dev"})
    client.volumes.create(f"tidemill-{STACK}-nobodys", labels={"a": "b"})
    try:
        with pytest.raises(RefusedError, match="belongs to the stack 'other-dev'"):
            make(Volume(), {"name": "theirs", "owner": 1})
        with pytest.raises(RefusedError, match="no stack created it"):
            make(Scratch(), {"name": "nobodys", "owner": 1})
        state = {"stack": STACK, "name": "theirs", "owner": 1, "volume": f"tidemill-{STACK}-theirs"}
        with pytest.raises(RefusedError, match="belongs to"):
            Volume().delete(context(), state)
    finally:
        for name in ("theirs", "nobodys"):
            client.volumes.get(f"tidemill-{STACK}-{name}").remove()


def test_data_which_is_gone_is_never_silently_made_again(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(Volume(), {"name": "data", "owner": 10001})
    scratch = make(Scratch(), {"name": "scratch", "owner": 10001})
    for state in (made, scratch):
        client.volumes.get(state["volume"]).remove()
    assert Scratch().read(context(), scratch) is None, "what may be lost is made again"
    seen = Volume().read(context(), made)
    assert seen is not None
    assert seen["missing"]
    with pytest.raises(RefusedError, match="data: is gone; restore it"):
        Volume().diff(context(), seen, {"stack": STACK, "name": "data", "owner": 10001})
    with pytest.raises(RefusedError, match="holds data"):
        Volume().guard_delete(made)
    monkeypatch.setenv("TIDEMILL_RECREATE", "data")
    assert "missing" in Volume().diff(context(), seen, {"stack": STACK, "name": "data", "owner": 10001}).changes


def test_files_hold_secrets_for_one_user_alone_and_other_contents_are_another_volume(
    client: Any, root: StackRoot, image: str
) -> None:
    secret = (root.secrets / "token").read_text().strip()
    inputs: dict[str, Any] = {
        "stack": STACK, "root": str(root.path), "name": "svc", "owner": 10001, "secrets": ["token"],
        "files": {"config/a/b.ini": "password = @{secret:token}\n", "config/web.yml": "@{bcrypt:token}"},
    }  # fmt: skip
    made = make(Files(), inputs)
    assert secret not in str(made), "the state holds no secret"
    mounts = mounted(("/run/tidemill", made["volume"]))
    script = (
        "cd /run/tidemill; cat config/a/b.ini; cat secrets/token; echo; cut -c1-7 config/web.yml;"
        "ls -ln config/a/b.ini secrets/token | cut -d' ' -f1,3,4; touch config/new 2>&1 || echo read-only"
    )
    said = run(root, image, script, mounts=mounts).splitlines()
    assert said[:3] == [f"password = {secret}", secret, "$2b$10$"]
    assert said[3:5] == ["-r-------- 10001 10001"] * 2
    assert said[-1] == "read-only"

    resource = Files()
    assert resource.diff(context(), made, inputs).changes == ()
    assert make(resource, inputs) == made
    other = {**inputs, "files": {"config/a/b.ini": "other"}}
    assert resource.diff(context(), made, other).replaces == ("files",)
    assert make(resource, other)["volume"] != made["volume"]
    (root.secrets / "token").write_text("another")
    assert resource.diff(context(), made, inputs).replaces == ("digest",)
    assert resource.read(context(), made) == made
    resource.delete(context(), made)
    assert resource.read(context(), made) is None


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"../x": ""}, "relative path"),
        ({"/etc/x": ""}, "relative path"),
        ({"secrets/x": ""}, "outside `secrets`"),
        ({"config/x": "@{moon}"}, "no such placeholder"),
    ],
)
def test_files_which_lead_elsewhere_are_refused(files: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Files().check({"stack": STACK, "root": "/r", "name": "x", "owner": 1, "files": files})


def test_a_missing_secret_leaves_no_volume_behind(client: Any, root: StackRoot) -> None:
    with pytest.raises(NotFoundError, match="no such secret"):
        make(Files(), {"root": str(root.path), "name": "svc", "owner": 1, "secrets": ["nothing"]})
    assert client.volumes.list(filters={"label": f"tidemill.stack={STACK}"}) == []


def test_a_job_is_kept_in_its_place(client: Any, root: StackRoot, image: str) -> None:
    script = (
        "id -u; grep CapEff /proc/self/status | cut -f2; grep NoNewPrivs /proc/self/status | cut -f2;"
        "touch /x 2>/dev/null || echo read-only; touch /tmp/x && echo scratch;"
        "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max; ls /sys/class/net"
    )
    said = run(root, image, script, memoryMb=100, cpus=0.5, processes=64).split()
    assert said == ["10001", "0000000000000000", "1", "read-only", "scratch", "64", "lo"]
    assert client.containers.list(all=True, filters={"label": f"tidemill.stack={STACK}"}) == [], "it went with its end"
    assert root.log("look").stat().st_mode & 0o077 == 0


def test_a_failed_job_says_why_without_its_secrets_and_runs_again(client: Any, root: StackRoot, image: str) -> None:
    made = make(Files(), {"root": str(root.path), "name": "svc", "owner": 10001, "secrets": ["token"]})
    mounts = mounted(("/run/tidemill", made["volume"]))
    with pytest.raises(ServiceError, match="failed with exit code 3") as caught:
        run(root, image, "echo the token is $(cat /run/tidemill/secrets/token); exit 3", mounts=mounts)
    assert "the token is ***" in str(caught.value)
    assert run(root, image, "echo well") == "well"


def test_a_job_ends_at_its_time_limit(client: Any, root: StackRoot, image: str) -> None:
    with pytest.raises(ServiceError, match="reached its time limit of 2 s"):
        run(root, image, "sleep 600", timeout=2.0)
    assert client.containers.list(all=True, filters={"label": f"tidemill.stack={STACK}"}) == []


def test_a_run_which_an_engine_left_is_waited_for_and_not_repeated(client: Any, root: StackRoot, image: str) -> None:
    volume = make(Volume(), {"name": "data", "owner": 10001})["volume"]
    inputs = {
        **SHELL,
        "stack": STACK,
        "root": str(root.path),
        "name": "seed",
        "image": image,
        "argv": ["echo x >> /data/runs"],
        "mounts": mounted(("/data", volume)),
    }
    killed = mock.patch(
        "tidemill.components.provider.docker.job._wait", side_effect=InterruptedError("the engine dies")
    )
    with killed, pytest.raises(InterruptedError):
        Job().create(context(), inputs)
    Job().create(context(), inputs)  # waits for the run that was left
    Job().create(context(), inputs)  # knows that it ended
    assert run(root, image, "cat /data/runs", mounts=mounted(("/data", volume))) == "x"
    Job().delete(context(), inputs)
    Job().create(context(), inputs)
    assert run(root, image, "cat /data/runs", mounts=mounted(("/data", volume))) == "x\nx"


def test_bounds_are_set_in_place_and_seen(client: Any, image: str) -> None:
    made = client.containers.run(
        image,
        ["-c", "sleep 600"],
        entrypoint="/bin/sh",
        detach=True,
        labels={"tidemill.stack": STACK},
        network_mode="none",
    )
    state = make(Bounds(), {"name": "svc", "container": made.id, "processes": 55})
    assert (Bounds().read(context(), state) or {})["processes"] == 55
    assert Bounds().diff(context(), state, {**state, "processes": 66}).replaces == ()
    made.remove(force=True)
    assert Bounds().read(context(), state) is None


def test_operations_stop_start_and_read_what_runs(client: Any, root: StackRoot, image: str) -> None:
    server = (
        "import http.server as h\n"
        "class A(h.BaseHTTPRequestHandler):\n"
        " def do_GET(self):\n"
        "  given = self.headers.get('Authorization', '')\n"
        "  self.send_response(200 if given == 'Bearer opens' else 401)\n"
        "  self.end_headers(); self.wfile.write(b'turns')\n"
        "h.HTTPServer(('0.0.0.0', 8080), A).serve_forever()\n"
    )
    (root.secrets / "token").write_text("opens")
    files = make(Files(), {"root": str(root.path), "name": "svc", "owner": 10001, "secrets": ["token"]})
    talker = "print('line 1'); print('line 2', flush=True); import time; time.sleep(600)"
    for name, code, well in (("retraining", server, "true"), ("ill", talker, "false")):
        client.containers.run(
            image,
            # The image of a test has no `python`, which ours have.
            ["-c", 'ln -sf "$(command -v python3)" /bin-of-mine/python; exec python3 -u -c "$CODE"'],
            entrypoint="/bin/sh",
            environment={"CODE": code, "PATH": "/bin-of-mine:/usr/local/bin:/usr/bin:/bin"},
            name=f"tidemill-{STACK}-{name}",
            labels={"tidemill.stack": STACK, "tidemill.service": name},
            user="10001:10001",
            tmpfs={"/bin-of-mine": "mode=1777,exec"},
            volumes={files["volume"]: {"bind": "/run/tidemill", "mode": "ro"}},
            healthcheck={"test": ["CMD", well], "interval": 10**9, "retries": 1},
            network_mode="none",
            init=True,
            detach=True,
        )
    operations = DockerOperations(STACK, root, DockerSettings())

    def states() -> dict[str, tuple[str, str | None]]:
        return {found.name: (found.state, found.problem) for found in operations.services()}

    wait(lambda: states()["retraining"] == ("running", "") and "does not answer" in (states()["ill"][1] or ""))
    assert operations.ask("retraining", "/status", token="token") == (200, b"turns")
    assert operations.ask("retraining", "/status") == (401, b"turns")
    assert operations.ask("ill", "/status") is None
    assert operations.ask("nobody", "/status") is None
    assert list(operations.logs("ill", 1)) == ["line 2"]
    assert operations.logged() == ["ill", "retraining"]
    assert operations.log_place("ill") == f"docker logs tidemill-{STACK}-ill"
    assert operations.stop() == 2
    assert {state for state, _ in states().values()} == {"stopped"}
    assert operations.stop() == 0
    operations.start()
    wait(lambda: {state for state, _ in states().values()} == {"running"})
    operations.restart("ill")
    assert states()["ill"][0] in {"running", "starting"}
    with pytest.raises(NotFoundError, match="has no container"):
        operations.restart("nobody")


def wait(ask: Any, seconds: float = 60) -> None:
    import time

    end = time.monotonic() + seconds
    while not ask():
        assert time.monotonic() < end
        time.sleep(0.3)


def test_a_daemon_elsewhere_is_refused_and_one_which_is_not_there_is_unreachable(tmp_path: Path) -> None:
    with (
        mock.patch.dict(os.environ, {"DOCKER_HOST": "ssh://somewhere.example"}),
        pytest.raises(ConfigError, match="another machine"),
    ):
        docker_daemon.connect.__wrapped__()
    with pytest.raises(UnreachableError, match="no Docker daemon listens there"):
        docker_daemon.connect.__wrapped__(f"unix://{tmp_path}/none")
