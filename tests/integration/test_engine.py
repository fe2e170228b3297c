"""Runs of the real engine on a small project: what a killed or foreign run leaves behind, and how it is told."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from pulumi.automation import CommandResult
from pulumi.automation.errors import create_command_error
from tidemill.components import tools
from tidemill.components.layout import StackRoot
from tidemill.runtime.common.errors import PlatformError, RefusedError, TidemillError, UserError
from tidemill.stacks.engine.events import Event
from tidemill.stacks.engine.failures import explain
from tidemill.stacks.engine.locks import clear_dead_locks
from tidemill.stacks.engine.run import Engine
from tidemill.stacks.loading import load_stack

# The SDK leaves the event loop of an inline program which failed to the garbage collector.
pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]

STACK = "tiny-dev"
Start = Callable[..., Engine]


def _nothing() -> None: ...


@pytest.fixture(autouse=True)
def _collect() -> Iterator[None]:
    yield
    gc.collect()  # while the filter above is in force


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("PULUMI_", "TIDEMILL_HOME", "TIDEMILL_RECREATE", "TIDEMILL_DELETE")):
            monkeypatch.delenv(name)
    tools.ensure("pulumi")
    (tmp_path / "Pulumi.yaml").write_text(
        "name: tinyproject\nruntime: python\nstackConfigDir: config\noptions: { refresh: always }\n"
    )
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / f"Pulumi.{STACK}.yaml").write_text(
        "# kept\nconfig:\n  tidemill:stack: { team: tiny, environment: dev, monitoring: { grafana: off } }\n"
    )
    return tmp_path


@pytest.fixture
def start(project: Path) -> Start:
    def make(program: Callable[[], None] = _nothing, events: list[Event] | None = None) -> Engine:
        return Engine(load_stack(project, STACK), program, listener=None if events is None else events.append)

    return make


def _state(project: Path) -> Path:
    return project / ".tidemill" / "state" / ".pulumi"


def _lock(project: Path, pid: int, host: str) -> Path:
    folder = _state(project) / "locks" / "organization" / "tinyproject" / STACK
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "11111111-2222-3333-4444-555555555555.json"
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    path.write_text(json.dumps({"pid": pid, "username": "somebody", "hostname": host, "timestamp": stamp}))
    return path


def _dead_pid() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_up_twice_then_destroy_leaves_only_what_is_the_users(project: Path, start: Start) -> None:
    def program() -> None:
        import pulumi

        pulumi.export("word", pulumi.Output.secret("tide"))
        pulumi.ComponentResource("tiny:x:Thing", "thing", None, None).register_outputs({})

    events: list[Event] = []
    assert start(program, events).up().changed > 0
    assert [event.operation for event in events if event.kind == "done" and event.name == "thing"] == ["create"]
    passphrase = project / ".tidemill" / "passphrase"
    assert passphrase.stat().st_mode & 0o777 == 0o600
    assert (project / ".tidemill").stat().st_mode & 0o077 == 0
    again = start(program).up()
    assert again.changed == 0
    assert again.notes == ()
    # The same state as the plain command line sees.
    engine = start(program)
    listed = subprocess.run(
        [str(tools.find("pulumi")), "stack", "ls", "--json"],
        cwd=project, env={**os.environ, **engine._environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [entry["name"] for entry in json.loads(listed.stdout)] == [STACK]
    config = project / "config" / f"Pulumi.{STACK}.yaml"
    engine.destroy(delete_data=True)
    assert config.read_text().startswith("# kept")
    left = [str(path.relative_to(project)) for path in project.rglob("*") if STACK in path.name and path != config]
    assert left == []
    assert start(program).destroy().changed == 0  # nothing there is no mistake


def test_up_leaves_the_stack_config_as_it_is(project: Path, start: Start) -> None:
    config = project / "config" / f"Pulumi.{STACK}.yaml"
    before = config.read_bytes()

    def pulumi(*args: str) -> str:
        environment = {**os.environ, **start()._environment, "PULUMI_STACK": STACK}
        argv = [str(tools.find("pulumi")), *args]
        return subprocess.run(argv, cwd=project, env=environment, capture_output=True, text=True, check=True).stdout

    def salt() -> str:
        return json.loads(pulumi("stack", "export"))["deployment"]["secrets_providers"]["state"]["salt"]

    start().preview()
    made = salt()
    start().up()
    start().refresh()
    assert config.read_bytes() == before
    # The plain command line takes the salt from the state, and may write it into the config for a commit.
    pulumi("config", "set", "--secret", "word", "hidden")
    assert f"encryptionsalt: {made}" in config.read_text()
    before = config.read_bytes()

    def program() -> None:
        import pulumi

        pulumi.export("word", pulumi.Config().require_secret("word"))

    start(program).up()
    assert config.read_bytes() == before
    assert salt() == made
    assert pulumi("stack", "output", "word", "--show-secrets").strip() == "hidden"
    # Another one, such as a later `git checkout`, leaves it to the state again.
    config.write_bytes(before.split(b"encryptionsalt")[0])
    start(program).up()
    assert b"encryptionsalt" not in config.read_bytes()
    assert salt() == made
    assert pulumi("stack", "output", "word", "--show-secrets").strip() == "hidden"


def test_a_named_secrets_provider_is_kept_in_the_stack_config(project: Path, start: Start) -> None:
    config = project / "config" / f"Pulumi.{STACK}.yaml"
    config.write_text(f"secretsprovider: passphrase\n{config.read_text()}")
    start().up()
    assert "encryptionsalt: v1:" in config.read_text()
    start().up()
    assert "encryptionsalt: v1:" in config.read_text()


def test_a_lock_of_a_dead_process_is_removed_and_told(project: Path, start: Start) -> None:
    start().up()
    lock = _lock(project, _dead_pid(), socket.gethostname())
    outcome = start().up()
    assert not lock.exists()
    assert any("is dead" in note and "removed the lock" in note for note in outcome.notes)


@pytest.mark.parametrize("case", ["other host", "alive here"])
def test_a_lock_which_may_be_in_use_is_never_removed(project: Path, start: Start, case: str) -> None:
    start().up()
    host = "elsewhere.example" if case == "other host" else socket.gethostname()
    pid = _dead_pid() if case == "other host" else os.getpid()
    lock = _lock(project, pid, host)
    with pytest.raises(PlatformError) as caught:
        start().up()
    assert lock.exists()
    assert caught.value.exit_code == 3
    assert (host in str(caught.value)) if case == "other host" else (str(pid) in str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_dead_lock_beside_a_foreign_one_stays_too(tmp_path: Path) -> None:
    dead = tmp_path / "a.json"
    dead.write_text("{}")
    message = (
        f"  file://{dead}?no_tmp_dir=true: created by me@{socket.gethostname()} "
        f"(pid {_dead_pid()}) at 2020-01-01T00:00:00Z\n"
        "  s3://bucket/b.json: created by you@other (pid 1) at 2020-01-01T00:00:00Z\n"
    )
    with pytest.raises(PlatformError, match="other"):
        clear_dead_locks(message, STACK, lambda: pytest.fail("cancelled"), lambda _: None)
    assert dead.exists()


def test_wrong_passphrase_is_one_sentence(project: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    start().up()
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "not the right one")
    with pytest.raises(UserError, match="wrong passphrase") as caught:
        start().up()
    assert "\n" not in str(caught.value)
    assert "not the right one" not in str(caught.value)


def test_two_at_once_and_a_killed_one(project: Path, start: Start) -> None:
    start().up()
    script = textwrap.dedent(f"""
        import time, pathlib
        from tidemill.stacks.engine.run import Engine
        from tidemill.stacks.loading import load_stack
        def program():
            print("running", flush=True)
            time.sleep(120)
        Engine(load_stack(pathlib.Path({str(project)!r}), {STACK!r}), program).up()
    """)
    first = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    try:
        assert first.stdout.readline().strip() == "running"
        engines = psutil.Process(first.pid).children(recursive=True)
        with pytest.raises(PlatformError, match=f"pid {first.pid}") as caught:
            start().up()
        assert caught.value.exit_code == 3
        assert first.poll() is None, "the second one waited for the first"
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
        first.stdout.close()
    # Its engine may live on for a moment with the lock in its hand, or end by itself before this one looks.
    start().up()
    _, alive = psutil.wait_procs(engines, timeout=10)
    assert not alive
    assert not list((_state(project) / "locks").rglob("*.json"))


def test_an_interrupt_is_passed_on_once_and_frees_the_lock(project: Path, start: Start) -> None:
    start().up()

    def program() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(3)

    with pytest.raises(PlatformError, match="interrupted"):
        start(program).up()
    assert start().up().notes == ()


def test_a_killed_engine_is_told_and_the_next_run_recovers(start: Start) -> None:
    start().up()

    def program() -> None:
        for child in psutil.Process().children():
            child.kill()
        time.sleep(1)

    with pytest.raises(PlatformError, match="engine was killed"):
        start(program).up()
    assert any("removed the lock" in note for note in start().up().notes)


def test_an_error_of_the_program_arrives_as_itself(start: Start) -> None:
    def program() -> None:
        raise UserError("too small", field="boat", hint="take the ferry")

    with pytest.raises(UserError) as caught:
        start(program).up()
    assert str(caught.value) == "boat: too small; take the ferry"


def _folder(project: Path, name: str) -> Callable[[], None]:
    """Return a program with a folder of our provider, which the project is told to find."""
    settings = project / "Pulumi.yaml"
    if "plugins" not in settings.read_text():
        providers = f"plugins: {{ providers: [{{ name: tidemill-native, path: '{Path(sys.prefix) / 'bin'}' }}] }}\n"
        settings.write_text(settings.read_text() + providers)
    root = StackRoot.of(project, STACK)

    def program() -> None:
        from tidemill.components.provider.resources import Folder

        Folder(name, stack=STACK, root=str(root.path))

    return program


def test_a_refusal_of_the_provider_keeps_its_exit_code(project: Path, start: Start) -> None:
    harbour = _folder(project, "harbour")
    start(harbour).up()
    StackRoot.of(project, STACK).data("harbour").rmdir()
    events: list[Event] = []
    with pytest.raises(RefusedError) as caught:
        start(harbour, events).up()
    said = "harbour: is gone; restore it, or run `tidemill up --recreate harbour` to start empty"
    assert (str(caught.value), caught.value.exit_code) == (said, 1)
    assert [event.exit_code for event in events if event.severity == "error" and event.name] == [1]
    assert not [event for event in events if "exit code" in event.text], "the code is told beside the words"


@pytest.mark.parametrize(
    ("codes", "kind"),
    [((1, 1), RefusedError), ((1, 2), UserError), ((1, 3), PlatformError), ((1, None), PlatformError)],
)
def test_of_several_failures_the_highest_exit_code_wins(
    project: Path, codes: tuple[int | None, ...], kind: type[TidemillError]
) -> None:
    errors = [
        Event("message", name=f"r{number}", text=f"error {number}", severity="error", exit_code=code)
        for number, code in enumerate(codes)
    ]
    failed = create_command_error(CommandResult("", "error: update failed", 255))
    error = explain(failed, errors, load_stack(project, STACK))
    assert (type(error), str(error)) == (kind, "r0: error 0\nr1: error 1")


@pytest.mark.parametrize(
    ("name", "owner", "kind", "said"),
    [
        ("a/b", STACK, UserError, "name: is not a valid name for a local resource, got 'a/b'"),
        ("store", "other-dev", RefusedError, "belongs to the stack 'other-dev'"),
    ],
)
def test_each_failure_of_the_provider_is_of_its_class(
    project: Path, start: Start, name: str, owner: str, kind: type[TidemillError], said: str
) -> None:
    root = StackRoot.of(project, STACK)
    root.path.mkdir(parents=True)
    mark = {"project": str(project), "program": "tinyproject", "stack": owner}
    root.owner.write_text(json.dumps(mark))
    with pytest.raises(kind) as caught:
        start(_folder(project, name)).up()
    assert said in str(caught.value)
    assert caught.value.exit_code == kind.exit_code


def test_a_taken_port_is_found_before_anything_is_made(project: Path, start: Start) -> None:
    config = project / "config" / f"Pulumi.{STACK}.yaml"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config.write_text(
            config.read_text().replace("environment: dev", f"environment: dev, ports: {{ mlflow: {port} }}")
        )
        with pytest.raises(PlatformError, match=rf"ports\.mlflow: the port is taken by .*got {port}"):
            start(_folder(project, "store")).up()
    assert not _state(project).exists(), "a stack was made"
    assert not StackRoot.of(project, STACK).path.exists()


def test_pending_creates_are_cleared_and_told(project: Path, start: Start) -> None:
    def program() -> None:
        import pulumi

        pulumi.ComponentResource("tiny:x:Thing", "thing", None, None).register_outputs({})

    start(program).up()
    file = _state(project) / "stacks" / "tinyproject" / f"{STACK}.json"
    state = json.loads(file.read_text())
    latest = state["checkpoint"]["latest"]
    provider = "urn:pulumi:tiny-dev::tinyproject::pulumi:providers:other::default::id"
    latest["pending_operations"] = [
        {
            "type": "creating",
            "resource": {
                "urn": f"urn:pulumi:{STACK}::tinyproject::other:x:Half::half",
                "type": "other:x:Half",
                "custom": True,
                "provider": provider,
            },
        }
    ]
    file.write_text(json.dumps(state))
    outcome = start(program).up()
    assert any("half" in note for note in outcome.notes)
    assert not json.loads(file.read_text())["checkpoint"]["latest"].get("pending_operations")
    assert start(program).up().notes == ()


def test_destroy_refuses_while_there_is_data(project: Path, start: Start) -> None:
    def program() -> None:
        import pulumi

        pulumi.ComponentResource("tiny:x:Thing", "thing", None, pulumi.ResourceOptions(protect=True))

    start(program).up()
    with pytest.raises(RefusedError) as caught:
        start(program).destroy()
    assert "tidemill stop" in str(caught.value)
    assert "--delete-data" in str(caught.value)
    assert caught.value.exit_code == 1
    start(program).destroy(delete_data=True)
    assert not (_state(project) / "stacks" / "tinyproject").exists()
