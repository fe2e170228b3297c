"""What a run says about its code, with real Git repositories."""

import os
import subprocess
from pathlib import Path

import pytest
from tidemill.runtime.training.lineage import (
    ENVIRONMENT,
    GIT_COMMIT,
    GIT_DIRTY,
    JOB_ID,
    NONE,
    RECORDED,
    Lineage,
    code_state,
)


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """The folder `team/code` of a repository with one commit."""
    folder = tmp_path / "team" / "code"
    folder.mkdir(parents=True)
    (folder / "train.py").write_text("print(1)\n")
    (tmp_path / "README").write_text("about\n")
    (tmp_path / ".gitignore").write_text("*.secret\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return folder


def test_clean_code_is_named_by_its_commit(code: Path) -> None:
    (code.parents[1] / "README").write_text("changed, but not below the code folder\n")
    found = Lineage.collect(code)
    assert found.tags[GIT_COMMIT] == git(code, "rev-parse", "HEAD")
    assert (found.tags[GIT_DIRTY], found.patch) == ("false", "")
    assert JOB_ID not in found.tags


def test_the_patch_of_dirty_code_makes_it_again(code: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (code / "train.py").write_text("print(2)\n")
    (code / "new features.py").write_text("x = 'ä'\n")
    (code / "blob.bin").write_bytes(bytes(range(256)))
    (code / "key.secret").write_text("ignored by Git")
    (code / "huge.csv").write_text("1\n" * 300_000)
    found = Lineage.collect(code)
    assert found.tags[GIT_DIRTY] == "true"
    assert "ignored by Git" not in found.patch

    fresh = tmp_path_factory.mktemp("fresh") / "clone"
    subprocess.run(["git", "clone", "-q", str(code.parents[1]), str(fresh)], check=True)
    git(fresh, "checkout", "-q", found.tags[GIT_COMMIT])
    subprocess.run(["git", "apply"], cwd=fresh, input=found.patch.encode("utf-8", "surrogateescape"), check=True)
    assert (fresh / "team/code/train.py").read_text() == "print(2)\n"
    assert (fresh / "team/code/new features.py").read_text() == "x = 'ä'\n"
    assert (fresh / "team/code/blob.bin").read_bytes() == bytes(range(256))
    assert not (fresh / "team/code/huge.csv").exists(), "data does not travel as code"


def test_code_outside_git_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The commit hook of another repository says where that one is.
    monkeypatch.setenv("GIT_DIR", str(Path.cwd() / ".git"))
    monkeypatch.setenv("TIDEMILL_JOB_ID", "job-7")
    found = Lineage.collect(tmp_path)
    assert (found.tags[GIT_COMMIT], found.tags[GIT_DIRTY], found.patch) == (NONE, NONE, "")
    assert found.tags[JOB_ID] == "job-7"


def test_without_git_there_is_still_an_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    found = Lineage.collect(tmp_path)
    assert found.tags[GIT_COMMIT] == NONE
    assert len(found.tags[ENVIRONMENT]) == 64
    assert Lineage.collect(tmp_path).tags[ENVIRONMENT] == found.tags[ENVIRONMENT]


def test_what_tidemill_keeps_is_never_in_a_patch(code: Path) -> None:
    kept = code / ".tidemill" / "stacks" / "a-dev" / "secrets"
    kept.mkdir(parents=True)
    (kept / "lakefs-encrypt").write_text("the value of it")
    found = Lineage.collect(code)
    assert (found.tags[GIT_DIRTY], found.patch) == ("false", "")


def test_some_files_may_be_left_out(code: Path) -> None:
    (code / "Pulumi.a-dev.yaml").write_text("config: {}\n")
    assert code_state(code).dirty
    left = code_state(code, leave_out=["Pulumi.*.yaml"])
    assert (left.dirty, left.patch, left.commit) == (False, "", git(code, "rev-parse", "HEAD"))


def test_code_in_an_image_is_named_by_what_was_written_down(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / RECORDED).write_text('{"commit": "abc", "dirty": true, "patch": "--- a\\n"}')
    found = Lineage.collect(tmp_path / "code")
    assert (found.tags[GIT_COMMIT], found.tags[GIT_DIRTY], found.patch) == ("abc", "true", "--- a\n")
