"""The provider, driven by the real engine on toy services."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pulumi
import pytest
from pulumi import automation as auto
from tidemill.components.provider import resources as native
from tidemill.components.provider.local import launch
from tidemill.components.provider.local.supervisor import Supervisor

from tests.support.platform import wait_for
from tests.support.toys import STACK, Engine, changes, endpoint, service, slow_program

pytestmark = [
    pytest.mark.integration,
    # The Automation API leaves the event loop of an inline program open.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path)
    yield made
    made.close()
    assert made.processes() == []
    # The event loops are collected here, where the filter above holds.
    gc.collect()


def pair(engine: Engine, *, greeting: str = "hello", fork: bool = False) -> Callable[[], None]:
    """Two independent services, one of which has a secret, and a job which counts its runs."""

    def program() -> None:
        secret = native.Secret("key", stack=STACK, root=str(engine.root.path))
        given = native.Secret(
            "given",
            stack=STACK,
            root=str(engine.root.path),
            value=pulumi.Output.secret("brought-by-user"),
        )
        folder = native.Folder("store", stack=STACK, root=str(engine.root.path))
        first, second = endpoint(engine, "first"), endpoint(engine, "second")
        service(
            engine,
            "first",
            first,
            env={"GREETING": greeting, **({"FORK": "1"} if fork else {})},
            secret_env={"KEY": "key"},
            config_files={"a/key.ini": "key = @{secret:key}\nhash = @{bcrypt:given}\n"},
            opts=pulumi.ResourceOptions(depends_on=[first, secret, given, folder]),
        )
        service(engine, "second", second)
        native.Job(
            "seed",
            stack=STACK,
            root=str(engine.root.path),
            argv=["sh", "-c", 'echo run >> "$0/runs"', "@{store:store}"],
            triggers={"by": "1"},
            opts=pulumi.ResourceOptions(depends_on=[folder]),
        )
        pulumi.export("port", first.port)
        pulumi.export("key", secret.value)

    return program


def test_a_stack_lives_and_only_what_changed_is_touched(engine: Engine) -> None:
    made = engine.up(pair(engine, fork=True))
    assert changes(made)["create"] >= 8
    first, second = engine.pid("first"), engine.pid("second")
    config = (engine.root.service("first") / "config" / "a" / "key.ini").read_text()
    key = (engine.root.secrets / "key").read_text()
    assert f"key = {key}\n" in config
    assert len(key) == 43

    again = engine.up(pair(engine, fork=True))
    assert set(changes(again)) == {"same"}, "a second `up` changes nothing"

    changed = engine.up(pair(engine, greeting="hi", fork=True))
    assert changes(changed)["update"] == 1
    assert engine.pid("second") == second, "a changed setting restarts no other service"
    assert engine.pid("first") != first
    assert len(engine.processes("first")) == 2, "the child of the old one is gone"

    # A killed parent: back without a hand, and its child does not serve beside the new one.
    first = engine.pid("first")
    os.kill(first, signal.SIGKILL)
    wait_for("the killed service", lambda: _new_pid(engine, "first", first), 30.0, 0.1)
    wait_for("one of it", lambda: len(engine.processes("first")) == 2, 10.0, 0.1)

    # A killed supervisord: its children live on; the next `up` has exactly one of each.
    (daemon,) = engine.processes("supervisord")
    os.kill(daemon, signal.SIGKILL)
    wait_for("its end", lambda: not engine.processes("supervisord"), 5.0, 0.1)
    healed = engine.up(pair(engine, greeting="hi", fork=True))
    assert changes(healed).get("create", 0) == 0
    wait_for("one of each", lambda: [len(engine.processes(n)) for n in ("first", "second")] == [2, 1], 10.0, 0.1)
    assert [(p.name, p.state in {"RUNNING", "STARTING"}) for p in Supervisor(engine.root).processes()] == [
        ("first", True),
        ("second", True),
    ]
    assert (engine.root.data("store") / "runs").read_text() == "run\n", "the job ran once"

    # A file changed by hand or lost is written again; the secret stays the same.
    (engine.root.secrets / "key").unlink()
    engine.up(pair(engine, greeting="hi", fork=True))
    assert (engine.root.secrets / "key").read_text() == key

    for secret in (key, "brought-by-user"):
        assert secret not in engine.state_text(), "no secret in plain text in the state"
        for process in map(psutil.Process, engine.processes()):
            assert secret not in " ".join(process.cmdline())
    for path in engine.root.path.rglob("*"):
        assert path.is_socket() or path.lstat().st_mode & 0o077 == 0 or path.is_dir(), f"{path} is readable by others"
    assert engine.root.path.stat().st_mode & 0o077 == 0

    # Data is not deleted without the user's word, and with it nothing is left.
    stack = engine.stack(lambda: None)
    with pytest.raises(auto.CommandError) as refused:
        stack.destroy()
    assert "tidemill stop" in str(refused.value)
    assert "tidemill destroy --delete-data" in str(refused.value)
    assert (engine.root.data("store") / "runs").exists()
    engine.stack(lambda: None, TIDEMILL_DELETE_DATA=STACK).destroy()
    assert engine.processes() == []
    assert not engine.root.data("store").exists()
    assert list(engine.root.secrets.iterdir()) == []


def _new_pid(engine: Engine, name: str, old: int) -> bool:
    record = launch.read_record(engine.root.record(name))
    return record is not None and record["pid"] != old and launch.alive(record)


def test_a_preview_knows_what_is_not_known_yet_and_touches_nothing(engine: Engine) -> None:
    def program() -> None:
        one = endpoint(engine, "one")
        service(engine, "one", one, env={"OWN": pulumi.Output.concat("http://127.0.0.1:", one.port.apply(str))})
        pulumi.export("port", one.port)

    seen = engine.stack(program).preview()
    assert {str(getattr(key, "value", key)): count for key, count in seen.change_summary.items()}["create"] == 3
    assert not engine.root.path.exists()


def test_a_service_which_fails_shows_its_log_and_leaves_nothing(engine: Engine) -> None:
    def program() -> None:
        secret = native.Secret("key", stack=STACK, root=str(engine.root.path))
        bad = "import os, sys; print('no database at', os.environ['KEY'], flush=True); sys.exit(3)"
        one = endpoint(engine, "one")
        after = pulumi.ResourceOptions(depends_on=[one, secret])
        service(engine, "one", one, code=bad, secret_env={"KEY": "key"}, opts=after)

    with pytest.raises(auto.CommandError) as failed:
        engine.up(program)
    text = str(failed.value)
    assert "one: keeps ending right after its start" in text
    assert "no database at ***" in text
    assert (engine.root.secrets / "key").read_text() not in text
    assert "Traceback" not in text
    assert engine.processes() == []
    assert not engine.root.service("one").exists()


def test_a_taken_port_is_named_with_who_took_it(engine: Engine) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        def program() -> None:
            service(engine, "one", endpoint(engine, "one", port=port))

        with pytest.raises(auto.CommandError) as failed:
            engine.up(program)
    assert f"endpoint one: its port is taken by {psutil.Process().name()} (pid {os.getpid()}), got {port}" in str(
        failed.value
    )
    assert not engine.root.endpoints.exists()


def test_a_failed_job_shows_its_log_and_runs_again(engine: Engine) -> None:
    def program(code: str) -> Callable[[], None]:
        def run() -> None:
            native.Job("seed", stack=STACK, root=str(engine.root.path), argv=["sh", "-c", code], timeout=1.0)

        return run

    with pytest.raises(auto.CommandError, match=r"(?s)seed: failed with exit code 7.*no such month"):
        engine.up(program("echo no such month; exit 7"))
    with pytest.raises(auto.CommandError, match="seed: reached its time limit"):
        engine.up(program("sleep 60"))
    assert engine.processes() == []
    assert changes(engine.up(program("echo well")))["create"] == 1


def test_another_stack_does_not_take_over(engine: Engine) -> None:
    def program(stack: str) -> Callable[[], None]:
        return lambda: native.Folder("store", stack=stack, root=str(engine.root.path)) and None

    engine.root.path.mkdir(parents=True)
    engine.root.owner.write_text('{"project": "/elsewhere", "program": "toys", "stack": "other-dev"}')
    with pytest.raises(auto.CommandError, match="belongs to the stack 'other-dev' of the project '/elsewhere'"):
        engine.up(program(STACK))
    assert not engine.root.data("store").exists()


def test_lost_data_is_not_made_again_in_silence(engine: Engine) -> None:
    def program() -> None:
        native.Folder("store", stack=STACK, root=str(engine.root.path), opts=pulumi.ResourceOptions(protect=True))

    engine.up(program)
    engine.root.data("store").rmdir()
    with pytest.raises(auto.CommandError) as failed:
        engine.up(program)
    diagnostics = str(failed.value).partition("Diagnostics:")[2]
    assert "store: is gone; restore it, or run `tidemill up --recreate store`" in diagnostics
    assert "exit code" not in diagnostics, "what a plain `pulumi up` says in the end are the words alone"
    assert not engine.root.data("store").exists()
    engine.up(program, TIDEMILL_RECREATE="store")
    assert engine.root.data("store").is_dir()
    assert set(changes(engine.up(program))) == {"same"}


@pytest.mark.parametrize("moved", [0, 3], ids=["python", "launcher"])
def test_a_service_started_by_an_earlier_version_is_restarted_with_the_new_command(
    engine: Engine, moved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def program() -> None:
        folder = native.Folder("store", stack=STACK, root=str(engine.root.path))
        one = endpoint(engine, "one")
        service(engine, "one", one, opts=pulumi.ResourceOptions(depends_on=[one, folder]))
        native.Job("seed", stack=STACK, root=str(engine.root.path), argv=["true"])

    engine.up(program)
    kept, port = engine.root.data("store") / "object", engine.root.endpoints.read_text()
    kept.write_text("data")
    # The earlier version had its Python, or its launch script, at another path.
    now = launch.command
    old = engine.folder / "old"
    old.symlink_to(now(Path())[moved])
    supervisor = Supervisor(engine.root)
    supervisor.stop()
    with monkeypatch.context() as earlier:
        earlier.setattr(launch, "command", lambda spec: [*now(spec)[:moved], str(old), *now(spec)[moved + 1 :]])
        supervisor.start()
        wait_for("the earlier service", lambda: _new_pid(engine, "one", 0), 10.0, 0.1)
    configuration = engine.root.conf / "one.conf"
    stale = configuration.read_text()
    assert str(old) in stale
    old.unlink()
    before = engine.pid("one")

    upgraded = changes(engine.up(program))
    assert {key: count for key, count in upgraded.items() if key != "same"} == {"update": 1}
    assert engine.pid("one") != before
    assert str(old) not in configuration.read_text()
    assert (kept.read_text(), engine.root.endpoints.read_text()) == ("data", port)
    again = engine.pid("one")
    os.kill(again, signal.SIGKILL)
    wait_for("the restarted service", lambda: _new_pid(engine, "one", again), 30.0, 0.1)
    assert set(changes(engine.up(program))) == {"same"}

    # `tidemill start` alone brings back what the earlier version stopped.
    supervisor.stop()
    configuration.write_text(stale)
    supervisor.start()
    wait_for("the started service", lambda: _new_pid(engine, "one", again), 10.0, 0.1)
    assert configuration.read_text() != stale


def _slow_up(engine: Engine) -> tuple[subprocess.Popen[bytes], psutil.Process]:
    """Return an `up` which waits for a service and a job, and its engine."""
    running = engine.start_slow()
    wait_for("the slow ones", lambda: bool(engine.processes("one") and engine.processes("job")), 60.0, 0.05)
    (up,) = [p for p in psutil.Process(running.pid).children() if "up" in p.cmdline()]
    return running, up


def test_an_interrupted_up_ends_soon_and_leaves_no_half_made_service(engine: Engine) -> None:
    running, up = _slow_up(engine)
    up.send_signal(signal.SIGINT)
    assert running.wait(60) != 0
    wait_for("the end of what was half-made", lambda: engine.processes() == [], 20.0, 0.1)
    wait_for("its folder to go", lambda: not engine.root.service("one").exists(), 20.0, 0.1)
    assert not engine.stack(slow_program(engine)).export_stack().deployment.get("pending_operations")


def test_a_killed_engine_leaves_no_provider_and_the_next_up_recovers(engine: Engine) -> None:
    running, up = _slow_up(engine)
    (provider,) = [p for p in up.children() if "tidemill-native" in " ".join(p.cmdline())]
    up.kill()
    assert running.wait(30) != 0
    wait_for("the provider's end", lambda: not provider.is_running(), 10.0, 0.1)

    program = slow_program(engine)
    stack = engine.stack(program)
    stack.cancel()
    stack.refresh(clear_pending_creates=True)
    engine.up(program)
    assert len(engine.processes("one")) == 1
    assert engine.root.log("job").read_text() == "done\n", (
        "the job of the interrupted `up` was waited for, not run twice"
    )
    deployment = stack.export_stack().deployment
    assert not deployment.get("pending_operations")
    assert set(changes(engine.up(program))) == {"same"}
    assert {r["type"].split(":")[-1] for r in deployment["resources"]} >= {"Endpoint", "Service", "Folder", "Job"}


def test_two_starters_give_one_supervisord_and_stop_leaves_nothing(engine: Engine) -> None:
    engine.up(lambda: service(engine, "one", endpoint(engine, "one")) and None)
    supervisor = Supervisor(engine.root)
    supervisor.stop()
    assert engine.processes() == []
    assert [(p.name, p.state) for p in supervisor.processes()] == [("one", "STOPPED")]
    code = (
        "import sys; from pathlib import Path; from tidemill.components.layout import StackRoot;"
        "from tidemill.components.provider.local.supervisor import Supervisor;"
        "Supervisor(StackRoot(Path(sys.argv[1]))).start(); assert 'pulumi' not in sys.modules"
    )
    starters = [subprocess.Popen([sys.executable, "-c", code, str(engine.root.path)]) for _ in range(3)]
    assert [starter.wait(60) for starter in starters] == [0, 0, 0]
    assert len(engine.processes("supervisord")) == 1
    wait_for("the service", lambda: _new_pid(engine, "one", 0), 10.0, 0.1)
    before = engine.pid("one")
    supervisor.restart("one")
    wait_for("the restarted service", lambda: _new_pid(engine, "one", before), 10.0, 0.1)
    assert len(engine.processes("one")) == 1
