"""The Git repository of a new project."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ...runtime.common.errors import ToolError
from .git_command import message_of, run_git

_IDENTITY = ("-c", "user.name=tidemill", "-c", "user.email=tidemill@localhost")
# The commit must not run the user's hooks or ask for a signature.
_OWN_SETTINGS = ("-c", "core.hooksPath=/dev/null", "-c", "commit.gpgsign=false", "-c", "core.autocrlf=false")


def first_commit(project: Path, place: Path, message: str) -> str | None:
    """Make `project` a repository with one commit of all its files, and return the commit.

    Returns None and makes no repository if `place`, the final folder of the project, is inside one already.

    Raises:
        ToolError: Git is missing, or fails.
    """
    above = place if place.exists() else place.parent
    while not above.exists():
        above = above.parent
    if _git(above, "rev-parse", "--is-inside-work-tree").stdout.strip() == b"true":
        return None
    _check(project, "init", "--quiet", "--template=", "--initial-branch=main")
    _check(project, *_OWN_SETTINGS, "add", "--all")
    known = all(_git(project, "var", name).returncode == 0 for name in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"))
    settings = (*_OWN_SETTINGS, *(() if known else _IDENTITY))
    _check(project, *settings, "commit", "--quiet", "--no-verify", "--message", message)
    return _check(project, "rev-parse", "HEAD")


def _check(folder: Path, *arguments: str) -> str:
    done = _git(folder, *arguments)
    if done.returncode:
        raise ToolError(f"the first commit failed: {message_of(done)}", field="git")
    return done.stdout.decode().strip()


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    # Inside a hook of another repository, Git's variables point to that repository.
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("GIT_") or key in _KEPT_VARIABLES or "CONFIG" in key
    }
    return run_git(folder, *arguments, env=environment)


_KEPT_VARIABLES = frozenset(
    f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL", "DATE")
) | {"GIT_EXEC_PATH", "GIT_SSL_CAINFO"}  # fmt: skip
