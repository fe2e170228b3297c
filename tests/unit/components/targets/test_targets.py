"""Which target a stack runs on: what it asks for first, and what is imported for it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from pulumi.automation import CommandResult
from pulumi.automation.errors import create_command_error
from tidemill.components.targets.registry import TARGETS
from tidemill.runtime.common.errors import UserError
from tidemill.stacks.cli.app import run
from tidemill.stacks.engine.environment import current_login, engine_environment, require_shared_state
from tidemill.stacks.engine.failures import explain
from tidemill.stacks.loading import LoadedStack, load_stack, project_settings
from tidemill.stacks.operations import stack_operations
from tidemill.stacks.program import compose

STACK = "quay-prod"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("TIDEMILL_HOME", raising=False)
    for name in ("PULUMI_BACKEND_URL", "PULUMI_ACCESS_TOKEN", "PULUMI_HOME", "PULUMI_CREDENTIALS_PATH"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "Pulumi.yaml").write_text("name: quay\nruntime: python\n")
    return tmp_path


def load(project: Path, target: str, more: str = "") -> LoadedStack:
    project_settings.cache_clear()
    (project / f"Pulumi.{STACK}.yaml").write_text(
        f"config:\n  tidemill:stack:\n    {{team: quay, environment: prod, target: {target},\n"
        f"    aws: {{region: eu-west-1, domain: quay.example.org, zone: Z1}},\n    {more}}}\n"
    )
    return load_stack(project, STACK)


@pytest.mark.parametrize(
    ("environ", "backend"),
    [({}, ""), ({"PULUMI_BACKEND_URL": "file:///srv/state"}, ""), ({}, "backend: {url: 'file://~/state'}\n")],
    ids=["default", "environment", "project"],
)
def test_aws_refuses_a_state_in_a_folder(project: Path, environ: dict[str, str], backend: str) -> None:
    with (project / "Pulumi.yaml").open("a") as file:
        file.write(backend)
    with pytest.raises(UserError) as caught:
        engine_environment(load(project, "aws"), environ)
    said = str(caught.value)
    assert said.startswith("PULUMI_BACKEND_URL: the whole team and CI must reach the state of a stack on aws")
    assert "s3://BUCKET" in said
    assert not (project / ".tidemill").exists(), "refused before a folder was made"
    require_shared_state(load(project, "docker"), environ)


@pytest.mark.parametrize(
    ("environ", "backend"),
    [
        ({"PULUMI_BACKEND_URL": "s3://state?region=eu-west-1"}, ""),
        ({"PULUMI_ACCESS_TOKEN": "x"}, ""),
        ({}, "backend: {url: 's3://state'}\n"),
    ],
    ids=["environment", "service", "project"],
)
def test_aws_takes_a_state_which_others_reach(project: Path, environ: dict[str, str], backend: str) -> None:
    with (project / "Pulumi.yaml").open("a") as file:
        file.write(backend)
    assert "PULUMI_BACKEND_URL" not in engine_environment(load(project, "aws"), environ)


def test_a_plain_pulumi_keeps_its_state_where_it_has_logged_in(project: Path, tmp_path: Path) -> None:
    (tmp_path / "pulumi").mkdir()
    (tmp_path / "pulumi" / "credentials.json").write_text(json.dumps({"current": "file:///home-of-somebody"}))
    environ = {"PULUMI_HOME": str(tmp_path / "pulumi")}
    login = current_login(project, environ)
    assert login == {"PULUMI_BACKEND_URL": "file:///home-of-somebody"}
    with pytest.raises(UserError, match="a folder on this machine"):
        require_shared_state(load(project, "aws"), {**environ, **login})
    assert current_login(project, {**environ, "PULUMI_BACKEND_URL": "s3://state"}) == {}


@pytest.mark.parametrize(
    ("target", "idle"),
    [("local", []), ("docker", []), ("aws", ["lakefs", "monitor"])],
)
def test_a_fixed_port_which_does_nothing_is_told_and_may_stay(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], target: str, idle: list[str]
) -> None:
    load(project, target, "ports: {lakefs: 8000, monitor: 8001}")
    monkeypatch.chdir(project)
    assert run(["validate"]) == 0
    said, *notes = capsys.readouterr().out.splitlines()
    assert said == f"Pulumi.{STACK}.yaml: valid"
    assert [note.split(" has ")[0] for note in notes] == [f"note: Pulumi.{STACK}.yaml:5: ports.{name}" for name in idle]
    assert all(note.endswith("or remove it") for note in notes)


@pytest.mark.parametrize("target", ["docker", "aws"])
def test_a_missing_extra_is_named(project: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    monkeypatch.setitem(TARGETS, target, dataclasses.replace(TARGETS[target], modules=("no_such_module",)))
    loaded = load(project, target)
    for use in (compose, stack_operations):
        with pytest.raises(UserError) as caught:
            use(loaded)
        assert str(caught.value) == (
            f"target: its modules are not installed, got '{target}'; run `pip install \"tidemill[{target}]\"`"
        )


def test_the_local_target_imports_no_other(project: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from tidemill.stacks.loading import load_stack\n"
        "from tidemill.stacks.program import _target\n"
        "from tidemill.stacks.operations import stack_operations\n"
        f"loaded = load_stack(pathlib.Path({str(project)!r}), {STACK!r})\n"
        "stack_operations(loaded)\n"
        "assert 'pulumi' not in sys.modules\n"
        "_target(loaded)\n"
        "print([name for name in ('docker', 'pulumi_docker', 'pulumi_aws', 'boto3') if name in sys.modules])\n"
    )
    load(project, "local")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("target", "line", "hint"),
    [
        ("local", "no resource plugin 'pulumi-resource-tidemill-native' found", 'pip install "tidemill[platform]"`'),
        ("docker", "no resource plugin 'pulumi-resource-tidemill-native' found", 'pip install "tidemill[docker]"`'),
        ("docker", "no resource plugin 'pulumi-resource-docker' found", "`pulumi plugin install resource docker`"),
        ("docker", "Could not automatically download docker-build v0.0.22", "plugin install resource docker-build`"),
        ("aws", "failed to load plugin aws: not found", "`pulumi plugin install resource aws`"),
    ],
)
def test_a_missing_plugin_is_told_with_the_way_to_it(project: Path, target: str, line: str, hint: str) -> None:
    failed = create_command_error(CommandResult("", f"error: {line}", 255))
    error = explain(failed, [], load(project, target))
    assert isinstance(error, UserError)
    assert line in str(error)
    assert hint in str(error)


def test_plugins_are_fetched_for_a_target_which_needs_a_vendors(project: Path) -> None:
    switch = "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"
    shared = {"PULUMI_BACKEND_URL": "s3://state"}
    assert switch in engine_environment(load(project, "local"), shared)
    assert switch not in engine_environment(load(project, "docker"), shared)
    assert switch not in engine_environment(load(project, "aws"), shared)
