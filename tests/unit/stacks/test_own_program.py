"""Which program a project has, and that it runs as the language host runs it, again and again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from tidemill.stacks.loading import project_settings
from tidemill.stacks.own_program import own_program, run_own_program

from tests.support.tree import ROOT

OURS = "from tidemill.stacks.program import main\n\nmain()\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    project_settings.cache_clear()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "Pulumi.yaml").write_text("name: quay\nruntime: python\nmain: program\n")
    (tmp_path / "program").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("text", "own"),
    [
        (None, False),
        (OURS, False),
        ("# As it was generated.\n" + OURS.replace("\n\n", "\n"), False),
        (OURS + "import extra\n", True),
        ("import pulumi\n", True),
        ("not Python\n", True),
    ],
)
def test_all_but_our_three_lines_is_a_program_of_its_own(project: Path, text: str | None, own: bool) -> None:
    if text is not None:
        (project / "program" / "__main__.py").write_text(text)
    assert own_program(project) == (project / "program" if own else None)


def test_our_own_project_has_none() -> None:
    project_settings.cache_clear()
    assert own_program(ROOT) is None


def test_it_runs_whole_each_time_in_its_own_folder(project: Path) -> None:
    seen = project / "seen"
    (project / "program" / "__main__.py").write_text("import quay_parts\nassert __name__ == '__main__'\n")
    (project / "program" / "quay_parts.py").write_text(
        f"import os, sys\nwith open({str(seen)!r}, 'a') as file:\n    print(os.getcwd(), sys.path[0], file=file)\n"
    )
    for _ in range(2):
        run_own_program(project / "program")
    assert seen.read_text() == f"{os.path.realpath(project / 'program')} .\n" * 2
    assert "tidemill.stacks.own_program" in sys.modules


def test_a_single_file_is_a_program_too(project: Path) -> None:
    (project / "Pulumi.yaml").write_text("name: quay\nruntime: python\nmain: quay.py\n")
    project_settings.cache_clear()
    (project / "quay.py").write_text("open('seen', 'w').close()\n")
    run_own_program(own_program(project) or project)
    assert (project / "seen").exists()
