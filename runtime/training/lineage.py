"""Where a training run comes from: the code's commit, what was changed since, the environment, the command."""

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

__all__ = [
    "COMMAND",
    "ENVIRONMENT",
    "GIT_COMMIT",
    "GIT_DIRTY",
    "JOB_ID",
    "JOB_VARIABLE",
    "LAKE_COMMIT",
    "LAKE_PATH",
    "LAKE_REPOSITORY",
    "NONE",
    "RECORDED",
    "CodeState",
    "Lineage",
    "code_state",
]

GIT_COMMIT = "tidemill.git.commit"
GIT_DIRTY = "tidemill.git.dirty"
LAKE_REPOSITORY = "tidemill.lake.repository"
LAKE_COMMIT = "tidemill.lake.commit"
LAKE_PATH = "tidemill.lake.path"
ENVIRONMENT = "tidemill.environment.sha256"
COMMAND = "tidemill.command"
JOB_ID = "tidemill.job.id"

RECORDED = ".tidemill-code.json"
"""File at the top of a project's copy in an image: the commit it was taken from, and what was changed since."""

NONE = "none"
"""Value of a tag whose thing there is not: the code is in no Git repository, no data was read from a lake."""

JOB_VARIABLE = "TIDEMILL_JOB_ID"

_GIT_SECONDS = 60.0
# A tag of MLflow holds 5,000 characters of text.
_COMMAND_LIMIT = 4000
# Larger files which Git does not know are data or builds rather than code.
_UNTRACKED_LIMIT = 256 * 1024
_SECRETIVE = (".env*", "*.pem", "*.key", "*.p12", "*.pfx", "id_*", "*secret*", "*password*", "*credential*", "*token*")
# Git run inside a hook or another tool is told about that one's repository.
_GIT_ENVIRONMENT = MappingProxyType({"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"})


@dataclass(frozen=True)
class Lineage:
    """What a run can say about itself before it reads data.

    Attributes:
        tags: name -> value; see the names in this module.
        patch: the changes below the code folder since the commit, as `git apply` takes them; empty when there are none.
        environment: the installed distributions, a `name==version` a line; the tag ENVIRONMENT is its SHA-256.
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
    """What Git says of a folder.

    Attributes:
        commit: the commit, or None without Git, outside a repository, or without a commit.
        dirty: whether anything was changed since.
        patch: the changes, as `git apply` takes them.
    """

    commit: str | None
    dirty: bool = False
    patch: str = ""


def code_state(code: Path, leave_out: Sequence[str] = ()) -> CodeState:
    """Return what Git says of the folder `code`, without files which fit a pattern of `leave_out`, such as `*.yaml`."""
    commit = _git(code, "rev-parse", "HEAD")
    if not commit:
        return CodeState(None)
    # What tidemill keeps beside Pulumi.yaml holds secrets, and the user may not have told Git to ignore it.
    paths = [".", *(f":(exclude,glob)**/{pattern}" for pattern in (".tidemill/**", *leave_out))]
    dirty = bool(_git(code, "status", "--porcelain", "--untracked-files=all", "--", *paths))
    return CodeState(commit.strip(), dirty, _patch(code, paths))


def _recorded(code: Path) -> CodeState | None:
    """Return what an image says of the code which was put into it, where no Git is at hand; None elsewhere."""
    for folder in (code, *code.parents):
        try:
            found: Any = json.loads((folder / RECORDED).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return CodeState(found["commit"], bool(found["dirty"]), str(found["patch"]))
    return None


def code_folder() -> Path:
    """Return the folder of the script which runs, or the working directory where there is none."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    return Path(script).resolve().parent if script else Path.cwd()


def _command(argv: Sequence[str]) -> str:
    """Return the command as text, its interpreter without the folder of this machine.

    >>> _command(["/opt/venv/bin/python3", "train.py", "--rows", "10"])
    'python3 train.py --rows 10'
    """
    return shlex.join([Path(argv[0]).name, *argv[1:]]) if argv else ""


def _environment() -> str:
    found = {f"{item.name.lower().replace('_', '-')}=={item.version}" for item in distributions()}
    return "\n".join([f"python=={platform.python_version()}", *sorted(found), ""])


def _patch(code: Path, paths: Sequence[str]) -> str:
    """Return the changes of files which Git knows, then small files which it does not know and does not ignore.

    Of files whose names say that they hold secrets nothing is kept: whoever may read a run would read them.
    """
    tracked = _git(code, "diff", "--binary", "--no-ext-diff", "--no-textconv", "HEAD", "--", *paths) or ""
    listed = _git(code, "ls-files", "-z", "--others", "--exclude-standard", "--full-name", "--", *paths) or ""
    top = Path((_git(code, "rev-parse", "--show-toplevel") or "").rstrip("\n"))
    parts = [tracked]
    for name in filter(None, listed.split("\0")):
        file = top / name
        if any(fnmatch(file.name.lower(), pattern) for pattern in _SECRETIVE):
            continue
        if file.is_file() and not file.is_symlink() and file.stat().st_size <= _UNTRACKED_LIMIT:
            # With --no-index Git answers 1 for "there is a difference".
            parts.append(_git(top, "diff", "--binary", "--no-index", "--", os.devnull, name, answers=(0, 1)) or "")
    return "".join(parts)


def _git(folder: Path, *arguments: str, answers: tuple[int, ...] = (0,)) -> str | None:
    """Return what Git prints, or None without Git, outside a repository, or without a commit."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env={**kept, **_GIT_ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode in answers else None
