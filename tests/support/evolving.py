"""Projects from the real template, and later versions of the template for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tidemill.stacks.projects import template_base
from tidemill.stacks.projects.answers import Answers
from tidemill.stacks.projects.tree import TEMPLATE_VERSION, render_project, template_folder, write_files

__all__ = ["commit", "contents", "git", "later_template", "made_project"]


def git(project: Path, *arguments: str) -> str:
    """Run Git in `project` with its own identity."""
    who = {f"GIT_{role}_{part}": "Test" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["git", *arguments], cwd=project, env={**os.environ, **who}, check=True, capture_output=True, text=True
    )
    return done.stdout


def commit(project: Path) -> None:
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--allow-empty", "--message", "A step of the team")


def made_project(folder: Path, answers: Answers) -> Path:
    """Create and commit the project that `tidemill init` would create, without lock and environment."""
    tree = render_project(answers)
    write_files(folder, {**tree, **template_base.base_files(answers, TEMPLATE_VERSION, tree)})
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def later_template(folder: Path, before: Path | None, changes: Mapping[str, tuple[str, str] | str | None]) -> Path:
    """Create a later version of the template in `folder`.

    Args:
        folder: the new folder.
        before: the version to change; default: this tidemill's.
        changes: path -> (old text, new text), the text of a new file, or None to remove the file.
    """
    shutil.copytree(before or template_folder(), folder)
    for name, change in changes.items():
        path = folder / name
        if change is None:
            path.unlink()
        elif isinstance(change, str):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(change, encoding="utf-8")
        else:
            old, new = change
            text = path.read_text(encoding="utf-8")
            assert old in text, f"{name} has not {old!r}"
            path.write_text(text.replace(old, new), encoding="utf-8")
    return folder


def contents(project: Path) -> dict[str, tuple[bytes, bool]]:
    """Return path -> content and executable bit of all files except those of Git and of this machine's state."""
    return {
        path.relative_to(project).as_posix(): (path.read_bytes(), bool(path.stat().st_mode & 0o100))
        for path in sorted(project.rglob("*"))
        if path.is_file() and path.relative_to(project).parts[0] not in (".git", ".tidemill")
    }
