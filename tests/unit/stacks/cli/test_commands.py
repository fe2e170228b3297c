"""Every command: its help, its examples, its page, what shells complete, and what stays plain where no terminal is."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import typer.main
from tidemill.stacks.cli.app import _EXTRAS, app, run
from tidemill.stacks.cli.examples import EXAMPLES, FIRST

from tests.support.documented_commands import PAGE, commands, parameters, renewed
from tests.support.tree import ROOT

COMMANDS = dict(commands())
TIDEMILL = Path(sys.prefix) / "bin" / "tidemill"
CONFIG = """\
config:
  tidemill:stack:
    team: harbour
    environment: dev
    models:
      tides: { owner: o, purpose: p, code: ., train: [python], data: harbour/main/tides, target: high }
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("TIDEMILL_", "PULUMI_")) and name != "TIDEMILL_CACHE":
            monkeypatch.delenv(name)
    (tmp_path / "Pulumi.yaml").write_text("name: harbour\nruntime: python\n")
    (tmp_path / "Pulumi.harbour-dev.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_has_an_example_and_every_example_a_command() -> None:
    assert set(EXAMPLES) == set(COMMANDS)
    assert [name for name, examples in EXAMPLES.items() if not examples] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_what_the_command_takes(name: str) -> None:
    for example in EXAMPLES[name]:
        found = re.search(r"tidemill ([^>|)]*)", example.line)
        assert found, example.line
        words = shlex.split(found[1].strip('"'))
        path = name.split()
        assert words[: len(path)] == path, example.line
        with COMMANDS[name].make_context(name, words[len(path) :]):
            pass


@pytest.mark.parametrize("words", [[], ["keys"], ["capture"]], ids=["tidemill", "keys", "capture"])
def test_the_help_of_a_group_has_examples_too(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words, "--help"]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    shown = [example.line for examples in (*EXAMPLES.values(), FIRST) for example in examples]
    lines = [line.strip() for line in said.partition("Examples:")[2].splitlines() if line.startswith("    tidemill ")]
    assert lines
    assert [line for line in lines if line not in shown or not line.startswith(" ".join(["tidemill", *words]))] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_it_takes_with_examples_and_without_colours(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*name.split(), "--help"]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "Examples:" in said
    for example in EXAMPLES[name]:
        assert example.line in said, "wrapped or left out"
    for written, parameter in parameters(COMMANDS[name]):
        assert parameter.help, f"{written} of {name} is not explained"


def test_the_page_of_the_commands_is_what_they_are() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert renewed(text) == text, "run `python -m tests.support.documented_commands`"
    root: Any = typer.main.get_command(app)
    options = {option for parameter in root.params for option in parameter.opts}
    assert {option for option in options if f"tidemill {option}`" not in text} == set()


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["statsu"], "status"),
        (["keys", "ad"], "add"),
        (["up", "--recreat", "x"], "--recreate"),
        (["capture", "find", "--direktory", "x"], "--directory"),
        (["status", "--stack", "harbor-dev"], "harbour-dev"),
        (["train", "tide"], "tides"),
        (["keys", "add", "tide", "x"], "tides"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(
    project: Path, capsys: pytest.CaptureFixture[str], words: list[str], meant: str
) -> None:
    assert run(words) == 2
    said = capsys.readouterr()
    assert f"did you mean {meant}?" in said.err
    assert said.out == ""


def test_what_is_not_near_anything_names_the_help_of_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "xyzzy"]) == 2
    assert capsys.readouterr().err == "tidemill: no such command: xyzzy; see `tidemill keys --help`\n"


def tidemill(*words: str, **env: str) -> str:
    """Run `tidemill` as a process of its own with pipes, and return what it says on standard output."""
    return subprocess.run(
        [str(TIDEMILL), *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    ).stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("tidemill sta", {"stacks", "start", "status"}),
        ("tidemill keys r", {"revoke"}),
        ("tidemill up --recr", {"--recreate"}),
        ("tidemill status --stack h", {"harbour-dev"}),
        ("tidemill train ", {"tides"}),
        ("tidemill logs -s harbour-dev serving-", {"serving-tides"}),
        ("tidemill train -s nowhere-dev ", set()),
        ("tidemill config --explain mon", {"monitoring"}),
        ("tidemill config --explain monitoring.r", {"monitoring.retention", "monitoring.receivers"}),
        ("tidemill add model x --repository h", {"harbour"}),
        ("tidemill init x --target d", {"docker"}),
    ],
)
def test_shells_complete_names(project: Path, typed: str, offered: set[str]) -> None:
    words = {"_TIDEMILL_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = subprocess.run(
        [str(TIDEMILL)], env={**os.environ, **words}, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert set(done.stdout.split()) == offered
    assert done.stderr == ""
    assert not (project / ".tidemill").exists()


def test_completion_installs_itself(tmp_path: Path) -> None:
    # Named, not looked for among the processes above: the tests may not run in a shell.
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    said = tidemill("--install-completion", "bash", HOME=str(tmp_path), **named)
    assert "bash" in said
    (script,) = (tmp_path / ".bash_completions").iterdir()
    assert "_TIDEMILL_COMPLETE" in script.read_text()
    assert str(script) in (tmp_path / ".bashrc").read_text()
    assert "_TIDEMILL_COMPLETE" in tidemill("--show-completion", "zsh", **named)


def on_a_terminal(*words: str, program: tuple[str, ...] = (str(TIDEMILL),), **env: str) -> str:
    """Run `tidemill` (or `program`) on a terminal of its own, and return all that it writes there."""
    ours, theirs = os.openpty()
    kept = {key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "FORCE_COLOR", "TERM"}}
    with subprocess.Popen(
        [*program, *words], stdin=theirs, stdout=theirs, stderr=theirs,
        env={"TERM": "xterm-256color", **kept, **env},
    ) as process:  # fmt: skip
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 65536):
                written += part
        except OSError:  # how a terminal ends whose other side is closed
            pass
        process.wait(60)
    os.close(ours)
    return written.decode()


@pytest.mark.parametrize("words", [["policies"], ["status"], ["up", "--help"]], ids=" ".join)
def test_no_colours_where_they_are_not_wanted(project: Path, words: list[str]) -> None:
    assert "\x1b" not in tidemill(*words, TERM="xterm-256color")
    assert "\x1b" not in on_a_terminal(*words, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(*words, TERM="dumb")


def test_a_terminal_gets_them(project: Path) -> None:
    assert "\x1b[" in on_a_terminal("policies")


# What `up` shows while it works, without an engine: a resource which takes a second, a stage, and a wait.
LONG = """
import time
from tidemill.stacks.cli.progress import Progress
from tidemill.stacks.cli.terminal import waiting
from tidemill.stacks.engine.events import Event
with Progress(as_json=False) as progress:
    progress(Event("started", type="a:b:Service", name="lakefs", operation="create"))
    progress.stage("flights", "flights: training")
    time.sleep(1)
    progress(Event("done", type="a:b:Service", name="lakefs", operation="create", seconds=1.0))
with waiting("starting all services"):
    time.sleep(0.5)
"""


def test_long_work_shows_what_it_is_at() -> None:
    program = (sys.executable, "-c", LONG)
    live = on_a_terminal(program=program)
    assert "create service lakefs ..." in live
    assert "flights: training ..." in live
    assert "starting all services" in live
    said = on_a_terminal(program=program, TERM="dumb")
    assert said.splitlines() == ["  flights: training", "  created service lakefs (1.0 s)"]
    uncoloured = on_a_terminal(program=program, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*m", uncoloured), "lines may move, and have no colour"
    piped = subprocess.run(program, capture_output=True, text=True, check=True)
    assert piped.stdout.splitlines() == ["  flights: training", "  created service lakefs (1.0 s)"]
    assert piped.stderr == ""


def test_every_extra_is_known_by_what_it_brings() -> None:
    """A missing module must lead to the extra; the base is always there."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    base = {"pandas", "numpy", "mlflow"}  # what the base drags in
    named = {module for modules in _EXTRAS.values() for module in modules} | base
    brings: dict[str, set[str]] = {}
    for module, distributions in packages_distributions().items():
        for distribution in distributions:
            brings.setdefault(re.sub(r"[-_.]+", "-", distribution).lower(), set()).add(module)
    # Programs, drivers which others load by name, and what only comes along.
    quiet = {"uv", "uvloop", "psycopg2-binary", "prometheus-flask-exporter", "packaging"}
    missing = [
        f"{extra}: {requirement}"
        for extra, requirements in extras.items()
        for requirement in requirements
        if not requirement.startswith("tidemill[")
        and (name := re.split(r"[\[<>=]", requirement)[0]) not in quiet
        and not brings[re.sub(r"[-_.]+", "-", name).lower()] & named
    ]
    assert missing == []
