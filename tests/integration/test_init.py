"""`tidemill init` with invalid input, interruptions and failures: it leaves no incomplete project."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tidemill.stacks.projects import template_base

from tests.support.platform import BIN, git, wait_for
from tests.support.tree import uv

pytestmark = pytest.mark.integration

# Precedes the real program on PATH, signals that it was called, and never ends.
HANGS = """#!/bin/sh
echo $$ > '{mark}'
exec sleep 600
"""
# Fails at the last Git command of `init`.
FAILS = """#!/bin/sh
for word; do [ "$word" = commit ] && {{ echo 'the disk is full' >&2; exit 1; }}; done
exec '{git}' "$@"
"""
# A run that is killed while it moves the entries of a complete project into an existing folder.
KILLED = """
import os, signal, sys
from pathlib import Path
from tidemill.stacks.projects import create
from tidemill.stacks.projects.answers import Answers

real = Path.rename
moved = []

def rename(self, target):
    if self.parent.name == "project":
        if len(moved) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        moved.append(self)
    return real(self, target)

Path.rename = rename
create.create(Path(sys.argv[1]), Answers.of({"team": "harbour", "environments": ["dev"], "models": ["berths"]}))
"""


def environment(**extra: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TIDEMILL_", "PULUMI_", "UV_"))}
    path = os.pathsep.join([str(Path(uv()).parent), kept.get("PATH", "")])
    return {**kept, "PATH": path, "NO_COLOR": "1", **extra}


def init(cwd: Path, *words: str, before: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, str(BIN / "tidemill"), "init", *words],
        cwd=cwd,
        env=environment(**env),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=300,
    )


def stub(folder: Path, name: str, text: str) -> str:
    """Create a program `name` that precedes those of PATH, and return the new PATH."""
    folder.mkdir()
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    return os.pathsep.join([str(folder), environment()["PATH"]])


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty folder inside the test's folder."""
    made = tmp_path / "place"
    made.mkdir()
    return made


def test_a_folder_that_is_not_empty_is_refused_and_unchanged(place: Path) -> None:
    (place / "harbour").mkdir()
    (place / "harbour" / "notes.txt").write_text("ours")
    before = contents(place)
    done = init(place, "harbour", "--defaults")
    assert done.returncode == 2
    assert "is not empty (it contains notes.txt)" in done.stderr
    assert contents(place) == before
    done = init(place, "harbour/notes.txt", "--defaults")
    assert (done.returncode, "is not a folder" in done.stderr) == (2, True)
    assert contents(place) == before


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--team", "Harbour Team"], "team: does not match"),
        (["--team", "../harbour"], "team: does not match"),
        (["--team", "docker"], "project: is reserved: the engine has a package of that name"),
        (["--team", "harbour", "--model", "a/b"], "models.0: does not match"),
        (["--team", "harbour", "--model", "a", "--model", "a"], "models: contains a twice"),
        (["--team", "harbour", "--env", "dev-1"], "environments.0: does not match"),
        (["--team", "harbour", "--target", "moon"], "target: unknown value, got 'moon'; use local, docker or aws"),
        (["--team", "harbour", "--target", "aws"], "aws.region: is missing"),
        (["--team", "harbour", "--repository", "x"], "repositories.0: does not match"),
        (["--team", "harbour", "--owner", "a\x1b[2Jb"], "owner: contains invisible characters"),
        (["--team", "harbour", "--python", "2.7"], "python: unknown value"),
        (["--answers", "answers.yaml"], "enviroments: unknown answer; did you mean environments?"),
        ([], "--team: cannot ask: standard input is not a terminal"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_invalid_answers_are_reported_before_anything_is_created(place: Path, words: list[str], named: str) -> None:
    (place / "answers.yaml").write_text("team: harbour\nenviroments: [dev]\n")
    before = contents(place)
    done = init(place, "harbour", *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(place) == before


def test_on_a_terminal_it_asks_until_the_answers_are_valid(place: Path) -> None:
    ours, theirs = os.openpty()
    try:
        with subprocess.Popen(
            [str(BIN / "tidemill"), "init", "harbour"], cwd=place, env=environment(), stdin=theirs,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        ) as started:  # fmt: skip
            os.write(ours, b"Port!\nport\ndev, prod\nmoon\nlocal\nberths tides\nops@example.org\n")
            said, _ = started.communicate(timeout=300)
    finally:
        os.close(ours)
        os.close(theirs)
    assert started.returncode == 0, said
    assert "team: does not match" in said
    assert "unknown value, got 'moon'" in said
    made = template_base.read(place / "harbour").answers
    assert (made.team, made.environments, made.models) == ("port", ["dev", "prod"], ["berths", "tides"])
    assert (made.target, made.owner) == ("local", "ops@example.org")


def test_a_folder_that_cannot_be_written_is_named(place: Path) -> None:
    place.chmod(0o555)
    before: tuple[str, ...] = ()
    if os.geteuid() == 0:
        # Without this capability, file modes also apply to root.
        if not shutil.which("setpriv"):
            pytest.skip("root cannot be kept from writing without setpriv")
        before = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all")
    try:
        done = init(place, "harbour", "--defaults", before=before)
    finally:
        place.chmod(0o755)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "cannot be written (Permission denied); nothing was created" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
@pytest.mark.parametrize(
    "how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda how: how.name
)
def test_an_interrupted_run_leaves_no_project(tmp_path: Path, place: Path, how: signal.Signals, there: bool) -> None:
    mark = tmp_path / "reached"
    path = stub(tmp_path / "bin", "uv", HANGS.format(mark=mark))
    if there:
        (place / "harbour").mkdir()
    argv = [str(BIN / "tidemill"), "init", "harbour", "--defaults"]
    with subprocess.Popen(
        argv, cwd=place, env=environment(PATH=path), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as started:  # fmt: skip
        number = wait_for("uv to be asked", lambda: mark.is_file() and mark.read_text().strip(), 60, every=0.05)
        hanging = psutil.Process(int(number))
        assert len(list(place.rglob("pyproject.toml"))) > 0  # it has started writing
        started.send_signal(how)
        if how == signal.SIGKILL:
            hanging.kill()
        said, _ = started.communicate(timeout=60)
    # 130: like a shell after Ctrl-C.
    assert started.returncode == (-how if how == signal.SIGKILL else 130)
    assert "Traceback" not in said
    assert psutil.wait_procs([hanging], timeout=30)[1] == []
    if how != signal.SIGKILL:
        assert [entry.name for entry in place.rglob("*")] == (["harbour"] if there else [])
        return
    # Leftovers of a killed run are hidden, are not a project, and are removed by the next run.
    (left,) = list((place / "harbour" if there else place).iterdir())
    assert left.name.startswith(".")
    assert there or not (place / "harbour").exists()
    done = init(place, "harbour", "--defaults")
    assert done.returncode == 0, done.stderr
    assert not left.exists()
    assert [entry.name for entry in place.iterdir()] == ["harbour"]
    assert git(place / "harbour", "status", "--porcelain") == ""


def test_a_failed_run_leaves_nothing(tmp_path: Path, place: Path) -> None:
    real = shutil.which("git")
    path = stub(tmp_path / "bin", "git", FAILS.format(git=real))
    done = init(place, "deep/down/harbour", "--defaults", PATH=path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "the first commit failed: the disk is full" in done.stderr
    assert list(place.iterdir()) == []


def test_the_next_run_finishes_one_that_was_killed_at_its_last_step(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(place)], env=environment(), cwd=place.parent, check=False, timeout=300
    )
    assert done.returncode == -signal.SIGKILL
    assert not (place / "uv.lock").exists()
    again = init(place, ".", "--defaults")
    assert again.returncode == 2
    assert "this run finished it" in again.stderr
    assert template_base.read(place).answers.models == ["berths"]
    assert git(place, "status", "--porcelain") == ""
    assert not list(place.glob(".tidemill-init-*"))


def test_it_works_in_the_empty_current_folder_without_a_git_identity(tmp_path: Path, place: Path) -> None:
    here = place.stat().st_ino
    nobody = {"HOME": str(tmp_path), "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    done = init(place, ".", "--team", "harbour", "--env", "dev", "--env", "prod", **nobody)
    assert done.returncode == 0, done.stderr
    assert place.stat().st_ino == here
    assert git(place, "log", "--format=%s") == "Generate the project from the tidemill template"
    assert git(place, "status", "--porcelain") == ""
    assert "uv run tidemill up --stack harbour-dev" in done.stdout


def test_inside_another_repository_it_makes_no_repository(place: Path) -> None:
    git(place, "init", "--quiet")
    done = init(place, "teams/harbour", "--defaults")
    assert done.returncode == 0, done.stderr
    assert "it is inside your Git repository" in done.stdout
    assert not (place / "teams/harbour/.git").exists()
