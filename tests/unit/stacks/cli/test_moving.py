"""What `export` and `import` say before they begin, and that the documentation leaves nothing of them out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
from tidemill.components.layout import StackRoot
from tidemill.stacks.cli.app import app, run
from tidemill.stacks.moving.contents import SETTLED, stores_of

from tests.support.tree import ROOT

TEXT = (ROOT / "docs" / "moving.md").read_text(encoding="utf-8")
CONFIG = "config:\n  tidemill:stack: {{team: harbour, environment: dev, target: {}}}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    (folder / "stacks/config").mkdir(parents=True)
    (folder / "Pulumi.yaml").write_text(
        "name: tidemill\nruntime: python\nmain: stacks\nstackConfigDir: stacks/config\n"
    )
    (folder / "stacks/config/Pulumi.harbour-dev.yaml").write_text(CONFIG.format("local"))
    monkeypatch.chdir(folder)
    for name in ("TIDEMILL_HOME", "TIDEMILL_STACK", "TIDEMILL_ARCHIVE_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
    return folder


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = run(words)
    return code, capsys.readouterr().err.strip()


def test_a_stack_which_never_was_up_has_nothing_to_export(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "export", "a.tar") == (2, "tidemill: harbour-dev: the stack is not up; run `tidemill up`")
    StackRoot.of(project, "harbour-dev").path.mkdir(parents=True)
    code, text = said(capsys, "export", "a.tar")
    assert (code, text.startswith("tidemill: passphrase: cannot ask: standard input is not a terminal")) == (2, True)
    assert not (project / "a.tar").exists()


def test_import_wants_an_archive_and_its_passphrase(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = said(capsys, "import", "a.tar", "--passphrase-file", "none")
    assert (code, text) == (2, "tidemill: --passphrase-file: cannot read the file, got 'none'")
    monkeypatch.setenv("TIDEMILL_ARCHIVE_PASSPHRASE", "a passphrase of tests")
    code, text = said(capsys, "import", "a.tar")
    assert (code, text) == (2, "tidemill: archive: no such file or folder, got 'a.tar'")
    assert not StackRoot.of(project, "harbour-dev").path.parent.exists()


@pytest.mark.parametrize("command", ["export", "import"])
def test_a_target_without_ends_says_so_and_names_the_way(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (project / "stacks/config/Pulumi.harbour-dev.yaml").write_text(
        "config:\n  tidemill:stack:\n    {team: harbour, environment: dev, target: aws, aws: {region: eu-central-1, "
        "domain: harbour.example.org, zone: Z0123456789ABCDEFGHIJ}}\n"
    )
    monkeypatch.setenv("TIDEMILL_ARCHIVE_PASSPHRASE", "a passphrase of tests")
    code, text = said(capsys, command, "a.tar")
    assert code == 2
    assert text == (
        "tidemill: target: `tidemill export` and `tidemill import` support only local and docker, got 'aws'; "
        'move the contents as docs/moving.md says under "By hand, on aws"'
    )
    assert "### By hand, on aws\n" in TEXT


def test_the_documentation_names_every_option_and_command() -> None:
    for command in ("export", "import"):
        found: Any = typer.main.get_command(app)
        options = {name for parameter in found.commands[command].params for name in parameter.opts if name[0] == "-"}
        assert {name for name in options if f"`{name}`" not in TEXT} == set()
        assert f"tidemill {command} -s" in TEXT


def test_every_store_of_the_program_moves_or_is_said_to_stay() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "components").glob("*.py")]
    made = {name for text in sources for name in re.findall(r'object_store\(f?"([^"]+)"', text)}
    moving = {name for name, _ in stores_of(["{name}"])} | {"mlflow-artifacts", "lakefs-objects"}
    assert made == (moving | set(SETTLED))
    assert [name for name in SETTLED if name.capitalize() not in TEXT] == []
