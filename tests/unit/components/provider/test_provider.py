"""The provider's parts, without an engine and without a server."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from tidemill.components.layout import StackRoot
from tidemill.components.provider.base import DELETE_DATA, RECREATE, UNKNOWN, Context, Diff, lookup
from tidemill.components.provider.local import launch
from tidemill.components.provider.local.files import log_tail
from tidemill.components.provider.local.placeholders import Placeholders
from tidemill.components.provider.local.ports import keep_port, kept_port, require_free
from tidemill.components.provider.wire import from_wire, to_wire
from tidemill.runtime.common.errors import ConfigError, NotFoundError, RefusedError, ServiceError
from tidemill.runtime.common.files import write_private

SERVICE = "tidemill-native:local:Service"
FOLDER = "tidemill-native:local:Folder"


@pytest.fixture
def root(tmp_path: Path) -> StackRoot:
    made = StackRoot(tmp_path / "stacks" / "toys-dev")
    write_private(made.secrets / "key", "correct-horse-battery")
    return made


def context() -> Context:
    return Context(urn="urn:pulumi:toys-dev::toys::tidemill-native:local:Folder::store", warn=lambda text: None)


def test_the_provider_imports_little() -> None:
    code = (
        "import sys, tidemill.components.provider.adapter;"
        "[__import__(f'tidemill.components.provider.{n}') for n in ('local', 'content.lakefs', 'content.mlflow')];"
        "heavy = {'pulumi', 'pydantic', 'pandas', 'pyarrow', 'mlflow', 'lakefs_sdk', 'httpx', 'psutil', 'rich'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_values_travel_there_and_back_with_the_marks_on_secrets() -> None:
    plain = {"a": [1, 2.5, "x", True, {"b": UNKNOWN}], "value": "hidden", "none": None}
    wired = to_wire(plain, {"value"})
    back, secrets = from_wire(wired)
    assert back == {"a": [1, 2.5, "x", True, {"b": UNKNOWN}], "value": "hidden"}
    assert isinstance(back["a"][0], int)
    assert secrets == {"value"}
    nested, marked = from_wire(to_wire({"env": {"A": "b"}}, {"env"}))
    assert (nested, marked) == ({"env": {"A": "b"}}, {"env"})


def test_placeholders_resolve_and_secrets_stand_in_config_files_only(root: StackRoot) -> None:
    texts = Placeholders(root, root.service("one"), ("127.0.0.1", 20001), lambda name: Path("/tools") / name)
    text = "@{config} @{scratch} @{host}:@{port} @{secret:key} @{secret-file:key} @{store:s} @{database:d} @{tool:t}"
    assert texts.resolve(text) == (
        f"{root.service('one')}/config {root.service('one')}/scratch 127.0.0.1:20001 correct-horse-battery "
        f"{root.secrets}/key {root.data('s')} sqlite:///{root.data('d')}/d.db /tools/t"
    )
    hashed = texts.resolve("@{bcrypt:key}")
    assert bcrypt.checkpw(b"correct-horse-battery", hashed.encode())
    assert texts.resolve("@{python}") == sys.executable
    to_compare = dataclasses.replace(texts, hashed=True).resolve("@{python}")
    assert to_compare == f"{sys.executable} {version('tidemill')}", "an upgrade restarts what runs tidemill's code"
    again = Placeholders(root, root.service("two"), None, lambda name: Path(name))
    assert again.resolve("@{bcrypt:key}") == hashed, "the same config each time"
    assert texts.resolve("{{ $value }} @{}") == "{{ $value }} @{}", "what is no placeholder stays"
    with pytest.raises(NotFoundError, match="no such secret"):
        texts.resolve("@{secret:other}")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"argv": ["x", "@{secret:key}"]}, r"argv\[1\]: a secret's value may only be used in a config file"),
        ({"env": {"A": "@{bcrypt:key}"}}, "env.A: a secret's value may only be used"),
        ({"env": {"A": "@{stroe:key}"}}, "env.A: no such placeholder, got '@{stroe:key}'"),
        ({"configFiles": {"../up": ""}}, "configFiles: must be a relative path"),
        ({"cwd": "here"}, "cwd: must be an absolute path"),
        ({"name": "a/b"}, "name: is not a valid name for a local resource"),
        ({"argv": None}, "argv: is missing"),
        ({"colour": "red"}, "colour: is not an input"),
    ],
)
def test_bad_inputs_are_named(change: dict[str, Any], said: str) -> None:
    good = {"stack": "toys-dev", "root": "/r", "name": "one", "argv": ["x", "@{secret-file:key}", UNKNOWN]}
    service = lookup(SERVICE)
    assert service.check(good) == good
    with pytest.raises(ConfigError, match=said):
        service.check(good | change)


def test_ports_are_kept_and_differ_between_stacks(root: StackRoot, tmp_path: Path) -> None:
    port = keep_port(root, "one", None)
    assert keep_port(root, "one", None) == kept_port(root, "one") == port
    assert 20_000 <= port < 32_000
    twin = StackRoot(tmp_path / "stacks" / "twin-dev")
    assert len({port, keep_port(root, "two", None), keep_port(twin, "one", None)}) == 3
    # Made again, the same port; not while somebody else sits on it, even one who is only starting.
    root.endpoints.unlink()
    assert keep_port(root, "one", None) == port
    root.endpoints.unlink()
    with socket.create_server(("127.0.0.1", port)):
        assert keep_port(root, "one", None) != port
        with pytest.raises(ServiceError, match=f"endpoint one: its port is taken by .*pid {os.getpid()}.*got {port}"):
            require_free("one", port)


def test_data_is_neither_deleted_nor_made_again_without_a_word(
    root: StackRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lookup(FOLDER)
    inputs = {"stack": "toys-dev", "root": str(root.path), "name": "store"}
    state = folder.create(context(), inputs)[1]
    assert folder.diff(context(), state, inputs) == Diff()
    for word in ("", "other-dev"):
        monkeypatch.setenv(DELETE_DATA, word)
        with pytest.raises(RefusedError, match=r"tidemill stop.*tidemill destroy --delete-data"):
            folder.guard_delete(state)
    monkeypatch.setenv(DELETE_DATA, "toys-dev")
    folder.guard_delete(state)
    monkeypatch.delenv(DELETE_DATA)

    Path(state["path"]).rmdir()
    gone = folder.read(context(), state)
    assert gone is not None
    with pytest.raises(RefusedError, match="store: is gone; restore it, or run `tidemill up --recreate store`"):
        folder.diff(context(), gone, inputs)
    monkeypatch.setenv(RECREATE, "other,store")
    assert folder.diff(context(), gone, inputs).changes == ("missing",)


def test_a_log_shows_no_secret(root: StackRoot) -> None:
    write_private(root.log("one"), "\n".join(f"line {n} correct-horse-battery" for n in range(100)))
    tail = log_tail(root, "one")
    assert tail.splitlines()[-1] == "line 99 ***"
    assert "horse" not in tail
    assert len(tail.splitlines()) == 20


def test_a_service_sees_no_more_of_the_environment_than_it_should() -> None:
    seen = launch.inherited({"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x", "HTTPS_PROXY": "http://p", "NO_PROXY": "a"})
    assert "AWS_SECRET_ACCESS_KEY" not in seen
    assert seen["NO_PROXY"] == "a,127.0.0.1,localhost", "the services reach one another without the proxy"
    assert seen["DO_NOT_TRACK"] == "1"


def spec_of(folder: Path, argv: list[str], **more: Any) -> Path:
    spec = {
        "argv": argv,
        "env": {},
        "secretEnv": {},
        "cwd": str(folder),
        "openFiles": 256,
        "stopSeconds": 1.0,
        "marker": f"{folder}/one",
        "record": str(folder / "one.json"),
        "digest": "d",
    }
    launch.write(folder / "spec.json", spec | more)
    return folder / "spec.json"


def start(spec: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        launch.command(spec),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={"PATH": os.environ["PATH"], launch.MARKER: f"{spec.parent}/one"},
    )


def run(spec: Path) -> tuple[int, str]:
    started = start(spec)
    said, _ = started.communicate(timeout=30)
    return started.returncode, said


def test_what_an_earlier_incarnation_left_ends_before_the_next(tmp_path: Path) -> None:
    # The child ignores SIGTERM, and lives on when its parent is killed.
    # Each line is one write: the two must not mix.
    code = (
        "import os, signal, time; signal.signal(15, signal.SIG_IGN); os.write(1, b'%d\\n' % os.fork()); time.sleep(60)"
    )
    spec = spec_of(tmp_path, [sys.executable, "-c", code])
    first = start(spec)
    assert first.stdout is not None
    child = max(int(first.stdout.readline()), int(first.stdout.readline()))
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert launch.recorded(tmp_path / "one.json") == [child]
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], process_group=0)
    assert run(spec_of(tmp_path, ["sh", "-c", "ulimit -n; umask"])) == (0, "256\n0077\n")
    end = time.monotonic() + 10
    while launch.start_mark(child) is not None:
        assert time.monotonic() < end, "the child lives on"
        time.sleep(0.05)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    first.stdout.close()


def test_a_record_of_a_number_which_came_again_harms_nobody(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], process_group=0)
    record = {"pid": stranger.pid, "start": "0:0", "group": stranger.pid, "marker": f"{tmp_path}/one"}
    launch.write(tmp_path / "one.json", record)
    assert not launch.alive(record)
    assert run(spec_of(tmp_path, ["true"]))[0] == 0
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_a_job_writes_down_how_it_ended(tmp_path: Path) -> None:
    done = tmp_path / "done.json"
    assert run(spec_of(tmp_path, ["sh", "-c", "sleep 60 & exit 3"], done=str(done), timeout=20.0))[0] == 3
    assert json.loads(done.read_text()) == {"digest": "d", "exit_code": 3}
    assert launch.recorded(tmp_path / "one.json") == [], "what it left in the background ends with it"
    run(spec_of(tmp_path, ["sleep", "60"], done=str(done), timeout=0.3))
    assert json.loads(done.read_text())["exit_code"] == launch.TIMED_OUT


LOOK_UP = """
import sys, threading
sys.setswitchinterval(1e-6)
from tidemill.components.provider.base import lookup
kinds = ("docker:Job", "local:Secret", "aws:Awake", "lakefs:Branch", "docker:Volume")
tokens = [f"tidemill-native:{kind}" for kind in kinds]
barrier, failures = threading.Barrier(len(tokens)), []
def look(token):
    barrier.wait()
    try:
        lookup(token)
    except BaseException as error:
        failures.append(f"{token}: {error!r}")
threads = [threading.Thread(target=look, args=(token,)) for token in tokens]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit("; ".join(failures) or 0)
"""


def test_threads_look_up_resources_at_once() -> None:
    """The first calls of the engine come in threads, and each imports the package of its resource."""
    for _ in range(10):
        done = subprocess.run([sys.executable, "-c", LOOK_UP], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
