"""What `up` sees to before the engine runs: tools with progress, Grafana once, fixed ports."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tidemill.components import tools
from tidemill.components.layout import StackRoot
from tidemill.components.provider.local import launch
from tidemill.components.provider.local.process import digest_of
from tidemill.components.tools import Program, Toolbox
from tidemill.runtime.common.errors import PlatformError, ToolError
from tidemill.stacks.engine.preparation import ensure_tools, require_free_ports
from tidemill.stacks.loading import LoadedStack, load_stack

from tests.support.fake_tools import FakeWay, package

STACK = "quay-dev"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which this process listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int) -> LoadedStack:
    monkeypatch.delenv("TIDEMILL_HOME", raising=False)
    (tmp_path / "Pulumi.yaml").write_text("name: quay\nruntime: python\n")
    (tmp_path / f"Pulumi.{STACK}.yaml").write_text(
        "config:\n  tidemill:stack:\n    team: quay\n    environment: dev\n"
        f"    ports: {{ prometheus: {taken}, mlflow: 20999 }}\n"
    )
    return load_stack(tmp_path, STACK)


def _toolbox(monkeypatch: pytest.MonkeyPatch, folder: Path, fake: FakeWay, grafana: FakeWay) -> None:
    other = replace(package(grafana), name="grafana", programs=(Program("grafana"),), optional=True)
    box = Toolbox([package(fake), other], folder / "cache")
    monkeypatch.setattr(tools, "default_toolbox", lambda: box)


def test_what_is_missing_is_got_before_the_engine_runs_and_told(
    loaded: LoadedStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    way = FakeWay(log)
    _toolbox(monkeypatch, tmp_path, way, replace(way, fails="no such host"))
    notes: list[str] = []
    ensure_tools(loaded, notes.append)
    assert notes[0] == "fake: 1.2.3 is in the cache after 0 s"
    assert notes[-1] == "grafana cannot be had, and the rest comes up without it; to have it, put `fake` on PATH"
    assert log.read_text() == "filled\n" * 2

    # A stack which is there already asks nobody for Grafana again, and what is in the cache is silent.
    StackRoot.of(loaded.project, STACK).service("lakefs").mkdir(parents=True)
    notes.clear()
    ensure_tools(loaded, notes.append)
    assert (notes, log.read_text()) == ([], "filled\n" * 2)


def test_a_tool_without_which_nothing_works_stops_it(
    loaded: LoadedStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = FakeWay(tmp_path / "log", missing="there is no moon")
    _toolbox(monkeypatch, tmp_path, way, way)
    with pytest.raises(ToolError, match="there is no moon"):
        ensure_tools(loaded, lambda _: None)


def test_the_provider_tells_too_what_it_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    way = FakeWay(tmp_path / "log")
    _toolbox(monkeypatch, tmp_path, way, way)
    inputs = {"stack": STACK, "root": str(tmp_path), "name": "one", "argv": ["@{tool:fake}"]}
    with pytest.raises(ToolError):
        digest_of(inputs, tmp_path, get_tools=None)
    said: list[str] = []
    digest_of(inputs, tmp_path, get_tools=said.append)
    assert said == ["fake: 1.2.3 is in the cache after 0 s"]


def test_a_taken_port_is_refused_unless_its_own_service_has_it(loaded: LoadedStack, taken: int) -> None:
    with pytest.raises(PlatformError) as caught:
        require_free_ports(loaded)
    assert f"Pulumi.{STACK}.yaml:5: ports.prometheus: the port is taken by" in str(caught.value)
    assert f"(pid {os.getpid()}), got {taken}; end that process" in str(caught.value)
    assert caught.value.exit_code == 3

    # The living process which the stack's record names is its own service's.
    root = StackRoot.of(loaded.project, STACK)
    marker = f"{root.path}/prometheus"
    own = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"],
        start_new_session=True,
        env={**os.environ, launch.MARKER: marker},
    )
    try:
        root.run.mkdir(parents=True)
        mark = {"pid": own.pid, "start": launch.start_mark(own.pid), "group": own.pid, "marker": marker}
        launch.write(root.record("prometheus"), mark)
        root.endpoints.write_text(json.dumps({"prometheus": taken}))
        require_free_ports(loaded)
        root.endpoints.write_text(json.dumps({"prometheus": taken + 1}))
        with pytest.raises(PlatformError, match=r"ports\.prometheus"):
            require_free_ports(loaded)
    finally:
        own.kill()
        own.wait()
