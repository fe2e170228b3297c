"""The lineage of a training run: Git commit, uncommitted changes, environment and command."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import distributions
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..common.tags import COMMAND, ENVIRONMENT, GIT_COMMIT, GIT_DIRTY, JOB_ID, NONE

RECORDED = ".tidemill-code.json"
"""File at the top of a project's copy in an image, with its Git commit and uncommitted changes."""

JOB_VARIABLE = "TIDEMILL_JOB_ID"

_GIT_SECONDS = 60.0
# MLflow limits a tag to 5,000 characters.
_COMMAND_LIMIT = 4000
# Larger untracked files are data or build output rather than code.
_UNTRACKED_LIMIT = 256 * 1024
_SECRET_NAMES = (
    ".env*",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "id_*",
    "*secret*",
    "*password*",
    "*credential*",
    "*token*",
)
# Set in place of all GIT_* variables: a Git hook sets those to its own repository.
_GIT_ENVIRONMENT = MappingProxyType({"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"})


@dataclass(frozen=True)
class Lineage:
    """The lineage of a run before it reads data.

    Attributes:
        tags: tags of `common.tags` -> value.
        patch: uncommitted changes below the code folder, for `git apply`; may be empty.
        environment: the installed distributions, one `name==version` a line; the tag ENVIRONMENT is its SHA-256.
    """

    tags: dict[str, str]
    patch: str
    environment: str

    @classmethod
    def collect(cls, code: Path) -> Lineage:
        """Return the lineage of this process, whose code is in the folder `code`."""
        state = _recorded(code) or code_state(code)
        environment = _environment()
        tags = {
            GIT_COMMIT: state.commit or NONE,
            GIT_DIRTY: str(state.dirty).lower() if state.commit else NONE,
            ENVIRONMENT: hashlib.sha256(environment.encode()).hexdigest(),
            COMMAND: _command(sys.orig_argv)[:_COMMAND_LIMIT],
        }
        if job := os.environ.get(JOB_VARIABLE):
            tags[JOB_ID] = job
        return cls(tags, state.patch, environment)


@dataclass(frozen=True)
class CodeState:
    """The Git state of a folder.

    Attributes:
        commit: the commit; None without Git, outside a repository, or before the first commit.
        dirty: whether there are uncommitted changes.
        patch: these changes, for `git apply`.
    """

    commit: str | None
    dirty: bool = False
    patch: str = ""


def code_state(code: Path, leave_out: Sequence[str] = ()) -> CodeState:
    """Return the Git state of the folder `code`, ignoring files that match a pattern in `leave_out` (`*.yaml`)."""
    commit = _git(code, "rev-parse", "HEAD")
    if not commit:
        return CodeState(None)
    # .tidemill/ holds secrets, and the user may not have told Git to ignore it.
    paths = [".", *(f":(exclude,glob)**/{pattern}" for pattern in (".tidemill/**", *leave_out))]
    dirty = bool(_git(code, "status", "--porcelain", "--untracked-files=all", "--", *paths))
    return CodeState(commit.strip(), dirty, _patch(code, paths))


def _recorded(code: Path) -> CodeState | None:
    """Return the Git state that was recorded when the code was copied into an image; None outside images."""
    for folder in (code, *code.parents):
        try:
            found: Any = json.loads((folder / RECORDED).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return CodeState(found["commit"], bool(found["dirty"]), str(found["patch"]))
    return None


def code_folder() -> Path:
    """Return the folder of the running script, or the working directory if there is no script."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    return Path(script).resolve().parent if script else Path.cwd()


def _command(argv: Sequence[str]) -> str:
    """Return the command as text, with the interpreter's name only.

    >>> _command(["/opt/venv/bin/python3", "train.py", "--rows", "10"])
    'python3 train.py --rows 10'
    """
    return shlex.join([Path(argv[0]).name, *argv[1:]]) if argv else ""


def _environment() -> str:
    found = {f"{item.name.lower().replace('_', '-')}=={item.version}" for item in distributions()}
    return "\n".join([f"python=={platform.python_version()}", *sorted(found), ""])


def _patch(code: Path, paths: Sequence[str]) -> str:
    """Return the changes of tracked files, then small untracked files.

    Files with names like secrets are left out, since everybody who can read the run could read them.
    """
    tracked = _git(code, "diff", "--binary", "--no-ext-diff", "--no-textconv", "HEAD", "--", *paths) or ""
    listed = _git(code, "ls-files", "-z", "--others", "--exclude-standard", "--full-name", "--", *paths) or ""
    top = Path((_git(code, "rev-parse", "--show-toplevel") or "").rstrip("\n"))
    parts = [tracked]
    for name in filter(None, listed.split("\0")):
        file = top / name
        if any(fnmatch(file.name.lower(), pattern) for pattern in _SECRET_NAMES):
            continue
        if file.is_file() and not file.is_symlink() and file.stat().st_size <= _UNTRACKED_LIMIT:
            # With --no-index, Git exits with 1 if there is a difference.
            parts.append(_git(top, "diff", "--binary", "--no-index", "--", os.devnull, name, ok=(0, 1)) or "")
    return "".join(parts)


def _git(folder: Path, *arguments: str, ok: tuple[int, ...] = (0,)) -> str | None:
    """Return Git's output, or None without Git, outside a repository, or before the first commit."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env={**inherited, **_GIT_ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode in ok else None
