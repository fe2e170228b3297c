"""The command line without a platform: which exit code, which sentence, and how little is loaded."""

from __future__ import annotations

import builtins
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tidemill.components.layout import StackRoot
from tidemill.stacks.cli.app import run
from tidemill.stacks.cli.first_steps import _raise_if_unsuccessful
from tidemill.stacks.engine.environment import backend_folder, engine_environment, ensure_passphrase
from tidemill.stacks.loading import load_stack
from tidemill.stacks.overview import RetrainingView

CONFIG = "config:\n  tidemill:stack:\n    team: harbour\n    environment: dev\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("TIDEMILL_", "PULUMI_")) and name != "TIDEMILL_CACHE":
            monkeypatch.delenv(name)
    (tmp_path / "Pulumi.yaml").write_text("name: quay\nruntime: python\nstackConfigDir: config\n")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "Pulumi.harbour-dev.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = run(words)
    output = capsys.readouterr()
    return code, output.out + output.err


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["stauts"], 2, "did you mean status?"),
        (["status", "--jsn"], 2, "--json"),
        (["status", "-s", "harbor-dev"], 2, "did you mean harbour-dev?"),
        (["up", "-s", "moon-dev", "--yes"], 2, "no such stack"),
        (["up"], 2, "--yes"),
        (["logs"], 2, "'service'"),
        (["stop"], 2, "tidemill up"),
        (["restart", "lakefs"], 2, "tidemill up"),
        (["train", "boats"], 2, "no such model"),
        (["validate"], 0, "valid"),
        (["schema"], 0, "tidemill:stack"),
        (["status"], 0, "is not up"),
        ([], 2, "Usage"),
        (["--version"], 0, "tidemill"),
    ],
)
def test_each_answer_has_its_exit_code(
    project: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, text: str
) -> None:
    found, output = said(capsys, *words)
    assert (found, text in output) == (code, True), output
    assert "Traceback" not in output
    assert not (project / ".tidemill").exists(), "something was made"


def test_the_stack_is_the_only_one_or_named(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "config" / "Pulumi.harbour-prod.yaml").write_text(CONFIG.replace("dev", "prod"))
    code, output = said(capsys, "status")
    assert (code, "harbour-dev, harbour-prod" in output) == (2, True), output
    monkeypatch.setenv("TIDEMILL_STACK", "harbour-prod")
    assert "harbour-prod is not up" in said(capsys, "status")[1]


def test_services_are_suggested_and_logs_are_their_last_lines(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = StackRoot.of(project, "harbour-dev")
    root.service("lakefs").mkdir(parents=True)
    root.logs.mkdir()
    root.log("lakefs").write_text("".join(f"line {number}\n" for number in range(100)))
    assert said(capsys, "logs", "lakefs", "-n", "2") == (0, "line 98\nline 99\n")
    code, output = said(capsys, "logs", "lakef")
    assert (code, "did you mean lakefs?" in output) == (2, True)


def test_outside_a_project_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = said(capsys, "status")
    assert (code, "Pulumi.yaml" in output) == (2, True)


def test_a_command_which_needs_an_extra_names_it(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def light(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "pulumi":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.startswith("tidemill.stacks.engine.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", light)
    code, output = said(capsys, "up", "--yes")
    assert (code, 'pip install "tidemill[platform]"' in output) == (2, True), output


def test_status_needs_neither_engine_nor_servers_libraries(project: Path) -> None:
    script = (
        "import sys; from tidemill.stacks.cli.app import run; code = run(['status']);"
        "heavy = {'pulumi', 'grpc', 'pandas', 'mlflow', 'great_expectations', 'sklearn'} & set(sys.modules);"
        "sys.exit(f'{code} {heavy}' if heavy or code else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=project, check=False)
    assert done.returncode == 0, done.stderr


def test_what_the_user_set_wins(project: Path) -> None:
    loaded = load_stack(project, "harbour-dev")
    mine = engine_environment(loaded, {})
    assert mine["PULUMI_BACKEND_URL"] == (project / ".tidemill" / "state").as_uri()
    assert Path(mine["PULUMI_CONFIG_PASSPHRASE_FILE"]).stat().st_mode & 0o777 == 0o600
    assert backend_folder(project, mine) == project / ".tidemill" / "state" / ".pulumi"
    theirs = {"PULUMI_BACKEND_URL": "s3://bucket", "PULUMI_CONFIG_PASSPHRASE": "mine"}
    assert not {*engine_environment(loaded, theirs)} & {"PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE_FILE"}
    assert backend_folder(project, theirs) is None
    assert "PULUMI_BACKEND_URL" not in engine_environment(loaded, {"PULUMI_ACCESS_TOKEN": "pul-1"})
    (project / "config" / "Pulumi.harbour-dev.yaml").write_text(f"secretsprovider: awskms://alias/x\n{CONFIG}")
    assert "PULUMI_CONFIG_PASSPHRASE_FILE" not in engine_environment(load_stack(project, "harbour-dev"), {})


def test_the_passphrase_is_made_once(tmp_path: Path) -> None:
    first = ensure_passphrase(tmp_path / "home").read_text()
    assert len(first.strip()) >= 40
    assert ensure_passphrase(tmp_path / "home").read_text() == first
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["passphrase"]


def test_env_is_safe_to_evaluate(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = tmp_path / "it's a $(folder)"
    odd.mkdir()
    os.environ["TIDEMILL_HOME"] = str(odd)
    try:
        code, output = said(capsys, "env")
    finally:
        del os.environ["TIDEMILL_HOME"]
    assert code == 0
    script = f"{output}\nprintf '%s' \"$PULUMI_CONFIG_PASSPHRASE_FILE $PULUMI_STACK\""
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"{odd / 'passphrase'} harbour-dev"


def test_env_tells_where_a_model_answers_once_it_does(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "boats").mkdir()
    (project / "config" / "Pulumi.harbour-dev.yaml").write_text(
        f"{CONFIG}    models:\n      tug-boats: {{ owner: o@example.org, purpose: Which tug is late, code: boats,\n"
        "        train: [python], data: harbour/main/boats, target: late }\n"
    )
    code, output = said(capsys, "env")
    assert (code, "TIDEMILL_SERVING" in output) == (0, False), output
    root = StackRoot.of(project, "harbour-dev")
    root.secrets.mkdir(parents=True)
    key = root.secrets / "serving-tug-boats-key"
    key.write_text("s3cret")
    root.endpoints.write_text('{"serving-tug-boats": 20001}')
    lines = said(capsys, "env")[1].splitlines()
    assert "export TIDEMILL_SERVING_TUG_BOATS_URL=http://127.0.0.1:20001" in lines
    assert f"export TIDEMILL_SERVING_TUG_BOATS_KEY_FILE={key}" in lines
    assert "export TIDEMILL_STACK=harbour-dev" in lines
    assert "s3cret" not in "".join(lines)


@pytest.mark.parametrize(("state", "code"), [("refused", 1), ("failed", 3)])
def test_following_ends_honestly(state: str, code: int) -> None:
    retraining = RetrainingView("1", "boats", "no-champion", state, "roc_auc 0.6 is below 0.65", None)
    with pytest.raises(Exception, match=r"0\.6 is below") as caught:
        _raise_if_unsuccessful("boats", retraining)
    assert getattr(caught.value, "exit_code", None) == code


def test_doctor_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    run(["doctor", "--json"])
    tools = {row["name"] for row in json.loads(capsys.readouterr().out)["tools"]}
    assert {"pulumi", "lakefs", "prometheus", "alertmanager", "grafana"} <= tools
