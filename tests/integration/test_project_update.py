"""`tidemill update` over three versions of the real template, in edited projects."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tidemill.runtime.common.errors import RefusedError, UserError
from tidemill.stacks.loading import load_stack
from tidemill.stacks.projects import template_base
from tidemill.stacks.projects.answers import Answers
from tidemill.stacks.projects.dependency_update import DependencyUpdate, Source, add_source
from tidemill.stacks.projects.tree import render_project
from tidemill.stacks.projects.updating import Update, update

from tests.support.evolving import commit, contents, git, later_template, made_project

ANSWERS = Answers.of({"team": "harbour", "environments": ["dev", "prod"], "models": ["berths", "late-ships"]})
BASE = "stacks/config/base.yaml"
TRAIN = "models/berths/train.py"


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The second and the third version of the template."""
    folder = tmp_path_factory.mktemp("templates")
    second = later_template(
        folder / "2",
        None,
        {
            f"{BASE}.j2": ("retention: 15d", "retention: 20d"),
            "models/__model__/train.py.j2": ("HOLDOUT = 0.2", "HOLDOUT = 0.25"),
            "scripts/check.sh.j2": "#!/bin/sh\n# {{ team }}\n\nset -eu\n\nexec uv run tidemill validate\n",
            "dot-yamllint.yaml.j2": None,
        },
    )
    third = later_template(
        folder / "3",
        second,
        {
            f"{BASE}.j2": ("retention: 20d", "retention: 25d"),
            "models/__model__/train.py.j2": ("Train and register a version", "Train a version and register it"),
            "scripts/check.sh.j2": None,
            "scripts/try.sh.j2": "#!/bin/sh\n# {{ team }}\n\nset -eu\n\nexec uv run tidemill config\n",
            "docs/__model__.md.j2": "# {{ model }}\n",
        },
    )
    return second, third


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return made_project(tmp_path / "project", ANSWERS)


def edit(project: Path, name: str, old: str, new: str) -> None:
    text = (project / name).read_text(encoding="utf-8")
    assert old in text
    (project / name).write_text(text.replace(old, new, 1), encoding="utf-8")


def kinds(done: Update) -> dict[str, str]:
    return {str(change.path): change.kind for change in done.changes}


def test_an_untouched_project_becomes_what_init_would_create(project: Path, versions: tuple[Path, Path]) -> None:
    for number, templates in zip("23", versions, strict=True):
        done = update(project, templates=templates, version=number)
        assert (done.after, done.conflicts) == (number, [])
        assert contents(project) == {
            str(path): (file.content, file.executable)
            for path, file in {
                **render_project(ANSWERS, templates),
                **template_base.base_files(ANSWERS, number, render_project(ANSWERS, templates)),
            }.items()
        }
        commit(project)
    assert update(project, templates=versions[1], version="3").changes == []


def test_edits_are_kept_and_conflicts_are_marked(project: Path, versions: tuple[Path, Path]) -> None:
    edit(project, BASE, "at_least: 0.65", "at_least: 0.7")
    edit(project, TRAIN, "HOLDOUT = 0.2", "HOLDOUT = 0.1")  # the template changes this line too
    (project / "models/late_ships/train.py").unlink()
    (project / "notes.md").write_text("Ours.\n")
    edit(project, ".yamllint.yaml", "extends: default", "extends: relaxed")
    commit(project)

    done = update(project, templates=versions[0], version="2")
    assert kinds(done) == {
        ".yamllint.yaml": "kept",
        BASE: "merged",
        TRAIN: "conflict",
        "models/late_ships/train.py": "kept",
        "scripts/check.sh": "added",
    }
    base = (project / BASE).read_text()
    assert "at_least: 0.7" in base
    assert "retention: 20d" in base
    assert (project / "scripts/check.sh").stat().st_mode & 0o111 == 0o111
    assert (
        "<<<<<<< yours\nHOLDOUT = 0.1\n||||||| tidemill template 1\nHOLDOUT = 0.2\n=======\nHOLDOUT = 0.25\n"
        ">>>>>>> tidemill template 2\n"
    ) in (project / TRAIN).read_text()
    assert not (project / "models/late_ships/train.py").exists()

    # The conflict is reported until it is resolved, and not overwritten.
    before = contents(project)
    again = update(project, templates=versions[0], version="2")
    assert (again.changes, [str(path) for path in again.conflicts]) == ([], [TRAIN])
    commit(project)
    with pytest.raises(RefusedError, match=r"models/berths/train\.py: contain conflicts of an earlier update"):
        update(project, templates=versions[1], version="3")
    assert contents(project) == before

    text = (project / TRAIN).read_text()
    start, rest = text.split("<<<<<<< yours\n")
    (project / TRAIN).write_text(start + "HOLDOUT = 0.15\n" + rest.split(">>>>>>> tidemill template 2\n")[1])
    edit(project, "scripts/check.sh", "# harbour", "# harbour!")
    git(project, "mv", TRAIN, "models/berths/fit.py")
    commit(project)
    done = update(project, templates=versions[1], version="3")
    assert kinds(done) == {
        BASE: "merged",
        "docs/berths.md": "added",
        "docs/late_ships.md": "added",
        "models/berths/fit.py": "merged",
        "models/late_ships/train.py": "kept",
        "scripts/try.sh": "moved",
    }
    assert "HOLDOUT = 0.15" in (project / "models/berths/fit.py").read_text()
    assert "Train a version and register it" in (project / "models/berths/fit.py").read_text()
    assert (
        project / "scripts/try.sh"
    ).read_text() == "#!/bin/sh\n# harbour!\n\nset -eu\n\nexec uv run tidemill config\n"
    assert os.access(project / "scripts/try.sh", os.X_OK)
    assert not (project / "scripts/check.sh").exists()
    assert (project / "notes.md").read_text() == "Ours.\n"
    assert load_stack(project, "harbour-dev").config.models["berths"].promote.at_least == 0.7


def test_uncommitted_files_are_not_touched(project: Path, versions: tuple[Path, Path]) -> None:
    edit(project, BASE, "at_least: 0.65", "at_least: 0.7")
    (project / "scripts").mkdir()
    (project / "scripts/check.sh").write_text("ours\n")
    (project / "README.md").write_text("The template does not touch this one.\n")
    before = contents(project)
    shown = update(project, templates=versions[0], version="2", dry_run=True)
    assert [str(path) for path in shown.uncommitted] == ["scripts/check.sh", BASE]
    with pytest.raises(RefusedError, match=r"scripts/check\.sh, stacks/config/base\.yaml: .*git commit"):
        update(project, templates=versions[0], version="2")
    assert contents(project) == before
    commit(project)
    assert kinds(update(project, templates=versions[0], version="2"))["scripts/check.sh"] == "conflict"


def test_without_git_nothing_is_changed(project: Path, versions: tuple[Path, Path]) -> None:
    shutil.rmtree(project / ".git")
    before = contents(project)
    with pytest.raises(UserError, match="not in a Git repository; run `git init"):
        update(project, templates=versions[0], version="2")
    assert contents(project) == before


def test_a_project_in_a_folder_of_a_repository_is_updated(tmp_path: Path, versions: tuple[Path, Path]) -> None:
    project = made_project(tmp_path / "mono" / "teams" / "harbour", ANSWERS)
    shutil.rmtree(project / ".git")
    git(tmp_path / "mono", "init", "--quiet")
    commit(tmp_path / "mono")
    edit(project, BASE, "at_least: 0.65", "at_least: 0.7")
    with pytest.raises(RefusedError, match=r"stacks/config/base\.yaml: have uncommitted changes"):
        update(project, templates=versions[0], version="2")
    commit(tmp_path / "mono")
    assert kinds(update(project, templates=versions[0], version="2"))[BASE] == "merged"


def test_a_newer_project_is_refused(project: Path, versions: tuple[Path, Path]) -> None:
    update(project, templates=versions[0], version="2")
    # An unknown answer does not cause another error.
    (project / template_base.ANSWERS).write_text((project / template_base.ANSWERS).read_text() + "  novelty: yes\n")
    commit(project)
    with pytest.raises(RefusedError, match="created or updated by a newer tidemill"):
        update(project, version="1")


def test_a_dry_run_writes_nothing(project: Path, versions: tuple[Path, Path]) -> None:
    before = contents(project)
    shown = update(project, templates=versions[0], version="2", dry_run=True)
    assert contents(project) == before
    assert not (project / ".tidemill").exists()
    assert shown.changes == update(project, templates=versions[0], version="2").changes


def test_new_answers_are_reported_and_answers_can_change(project: Path, versions: tuple[Path, Path]) -> None:
    answers = project / template_base.ANSWERS
    answers.write_text("".join(line for line in answers.read_text().splitlines(True) if "python:" not in line))
    commit(project)
    assert update(project, templates=versions[0], version="2").questions == {"python": "3.11"}
    commit(project)
    done = update(project, {"target": "docker"}, templates=versions[0], version="2")
    assert kinds(done)["stacks/config/Pulumi.harbour-dev.yaml"] == "updated"
    assert load_stack(project, "harbour-prod").config.target == "docker"
    assert template_base.read(project).answers.target == "docker"
    commit(project)
    with pytest.raises(UserError, match="team: cannot be changed"):
        update(project, {"team": "other"}, templates=versions[0], version="2")


@pytest.mark.parametrize("failing", ["plan.json", "check.sh", "train.py", "answers.yaml"])
def test_a_file_that_cannot_be_written_leaves_everything_unchanged(
    project: Path, versions: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    before = contents(project)
    real = Path.replace

    # Root can write every folder, so the disk fails instead.
    def replace(self: Path, target: Path) -> Path:
        if target.name == failing and not failed:
            failed.append(target)
            raise OSError(28, "No space left on device", str(target))
        return real(self, target)

    failed: list[Path] = []
    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(UserError, match=f"{failing}: cannot be written .No space.*nothing was changed"):
        update(project, templates=versions[0], version="2")
    assert contents(project) == before
    assert not (project / "scripts").exists()
    assert not (project / ".tidemill").exists()
    update(project, templates=versions[0], version="2")
    assert "retention: 20d" in (project / BASE).read_text()


KILLED = """
import os, signal, sys
from pathlib import Path
from tidemill.stacks.projects import applying
from tidemill.stacks.projects.updating import update

left = int(sys.argv[3])
real = Path.replace
def replace(self, target):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
Path.replace = replace
update(Path(sys.argv[1]), templates=Path(sys.argv[2]), version="2")
"""


@pytest.mark.parametrize("files", [3, 12, 16])
def test_the_next_update_finishes_a_killed_one(
    project: Path, versions: tuple[Path, Path], tmp_path: Path, files: int
) -> None:
    edit(project, BASE, "at_least: 0.65", "at_least: 0.7")
    commit(project)
    other = tmp_path / "other"
    shutil.copytree(project, other)
    update(other, templates=versions[0], version="2")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(project), str(versions[0]), str(files)], check=False)
    assert killed.returncode == -signal.SIGKILL
    done = update(project, templates=versions[0], version="2")
    assert contents(project) == contents(other)
    assert done.conflicts == []


def test_a_killed_update_does_not_overwrite_later_changes(project: Path, versions: tuple[Path, Path]) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(project), str(versions[0]), "16"], check=False)
    assert killed.returncode == -signal.SIGKILL
    edit(project, BASE, "at_least: 0.65", "at_least: 0.7")
    before = contents(project)
    with pytest.raises(RefusedError, match=r"interrupted.*git restore"):
        update(project, templates=versions[0], version="2")
    assert contents(project) == before
    git(project, "restore", BASE)
    update(project, templates=versions[0], version="2")
    assert "retention: 20d" in (project / BASE).read_text()


NEWS = [
    'constraint-dependencies = ["tidemill==0.1.0"]\n',
    'tidemill = { path = "vendor/tidemill-0.1.0-py3-none-any.whl" }\n',
]
LATER = [
    Source('constraint-dependencies = ["tidemill==0.2.0"]\n'),
    Source(
        'tidemill = { path = "vendor/tidemill-0.2.0-py3-none-any.whl" }\n', ("tidemill-0.2.0-py3-none-any.whl", b"2")
    ),
]


@pytest.mark.parametrize("before", NEWS)
@pytest.mark.parametrize("after", LATER)
def test_the_projects_own_tidemill_is_updated_with_the_template(
    project: Path, versions: tuple[Path, Path], tmp_path: Path, before: str, after: Source
) -> None:
    template = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(add_source(template, before))
    if "vendor" in before:
        (project / "vendor").mkdir()
        (project / "vendor/tidemill-0.1.0-py3-none-any.whl").write_bytes(b"1")
    (project / "uv.lock").write_text("old\n")
    commit(project)
    # The later template changes the end of the file, next to that line.
    later = later_template(
        tmp_path / "later", None, {"pyproject.toml.j2": ("package = false", "package = false # none")}
    )
    asked: list[str] = []

    def lock(folder: Path) -> None:
        asked.append((folder / "pyproject.toml").read_text())
        (folder / "uv.lock").write_text("new\n")

    done = update(project, templates=later, version="2", dependency=DependencyUpdate(lambda: after, lock))
    assert done.conflicts == []
    wanted = add_source(template.replace("package = false", "package = false # none"), after.line)
    assert asked == [(project / "pyproject.toml").read_text()] == [wanted]
    assert tomllib.loads(wanted)["tool"]["uv"]["package"] is False
    assert (project / "uv.lock").read_text() == "new\n"
    assert [path.name for path in project.glob("vendor/*")] == ([after.wheel[0]] if after.wheel else [])
    again = update(project, templates=later, version="2", dependency=DependencyUpdate(lambda: after, lock))
    assert (again.changes, len(asked)) == ([], 1)
    # A release without a new template is applied too; the team's edits around the line stay.
    edit(project, "pyproject.toml", after.line, f"{after.line}# Ours.\n")
    commit(project)
    newest = Source(after.line.replace("0.2", "0.3"), after.wheel and (after.wheel[0].replace("0.2", "0.3"), b"3"))
    done = update(
        project, templates=later, version="2", dependency=DependencyUpdate(lambda: newest, lambda _: "no network")
    )
    assert done.unlocked == "no network"
    assert f"{newest.line}# Ours.\n" in (project / "pyproject.toml").read_text()
    assert [path.name for path in project.glob("vendor/*")] == ([newest.wheel[0]] if newest.wheel else [])


def test_a_source_that_the_team_chose_is_kept(project: Path, versions: tuple[Path, Path]) -> None:
    own = '\n[tool.uv.sources]\ntidemill = { git = "https://example.org/tidemill" }\n'
    (project / "pyproject.toml").write_text((project / "pyproject.toml").read_text() + own)
    commit(project)
    update(project, templates=versions[0], version="2", dependency=DependencyUpdate(lambda: LATER[1], lambda _: None))
    assert (project / "pyproject.toml").read_text().endswith(own)
    assert not (project / "vendor").exists()


NAMES = st.sampled_from([BASE, TRAIN, ".gitignore", "Pulumi.yaml", ".yamllint.yaml"])
LINES = st.sampled_from(["ours", "", "  ours: 1"])
EDITS = st.lists(
    st.tuples(NAMES, st.integers(0, 80), st.integers(0, 3), st.lists(LINES, max_size=3)),
    min_size=1,
    max_size=8,
)  # fmt: skip


# Each example takes seconds of Git, so a failing one is not minimised.
@settings(max_examples=8, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(EDITS, EDITS)
def test_no_line_of_the_team_is_lost_in_updates(
    tmp_path_factory: pytest.TempPathFactory, versions: tuple[Path, Path], first: object, second: object
) -> None:
    project = made_project(tmp_path_factory.mktemp("edited"), ANSWERS)
    for number, templates, edits in zip("23", versions, (first, second), strict=True):
        assert isinstance(edits, list)
        for name, start, dropped, lines in edits:
            path = project / name
            old = path.read_text().splitlines() if path.exists() else []
            path.write_text("".join(f"{line}\n" for line in [*old[:start], *lines, *old[start + dropped :]]))
        commit(project)
        kept = template_base.read(project).tree
        before = {name: Counter(content.split(b"\n")) for name, (content, _) in contents(project).items()}
        try:
            update(project, templates=templates, version=number)
        except RefusedError:  # unresolved conflicts of the first update
            return
        after = {name: Counter(content.split(b"\n")) for name, (content, _) in contents(project).items()}
        for name in (name for name in before if not name.startswith(".tidemill-template")):
            file = next((file for path, file in kept.items() if str(path) == name), None)
            template = Counter(file.content.split(b"\n")) if file else Counter[bytes]()
            lost = before[name] - template - after.get(name, Counter())
            assert not lost, name
        commit(project)
