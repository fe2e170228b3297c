"""Merges the lines of one file three ways with `git merge-file`; keeps every line of the team.

Lines that both sides changed are written between conflict markers: the team's, the old template's, the new template's.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from ...runtime.common.errors import ToolError
from .git_command import message_of, run_git

_SNIFFED_BYTES = 8000  # like Git: a zero among the first bytes means binary
_MAX_CONFLICTS = 127  # git-merge-file(1): the exit code is the number of conflicts; larger codes are failures


@dataclass(frozen=True)
class ConflictLabels:
    """The labels of the three sides in conflict markers."""

    ours: str
    base: str
    theirs: str


@dataclass(frozen=True)
class MergeResult:
    """A merged file and its number of conflicts."""

    content: bytes
    conflicts: int


def is_binary(content: bytes) -> bool:
    """Return whether `content` is binary, without lines to merge.

    >>> is_binary(b"text"), is_binary(bytes(4))
    (False, True)
    """
    return b"\0" in content[:_SNIFFED_BYTES]


def merge_lines(ours: bytes, base: bytes | None, theirs: bytes, labels: ConflictLabels) -> MergeResult:
    """Apply the changes from `base` to `theirs` to `ours`; without a base, merge the two files.

    If only `ours` uses CRLF line endings, they are ignored in the merge and kept in the result.

    Raises:
        ToolError: Git is missing, or fails.
    """
    if _only_crlf(ours) and not (b"\r\n" in theirs or b"\r\n" in (base or b"")):
        merged = merge_lines(ours.replace(b"\r\n", b"\n"), base, theirs, labels)
        return MergeResult(merged.content.replace(b"\n", b"\r\n"), merged.conflicts)
    # With the style `merge`, Git also moves common lines out of the conflict; diff3 would show an empty base.
    style = ["-c", "merge.conflictStyle=merge"] if base is None else []
    with tempfile.TemporaryDirectory(prefix="tidemill-merge-") as folder:
        for name, content in (("ours", ours), ("base", base or b""), ("theirs", theirs)):
            (Path(folder) / name).write_bytes(content)
        argv = [*style, "merge-file", "-p", *(["--diff3"] if base is not None else [])]
        for label in (labels.ours, labels.base, labels.theirs):
            argv += ["-L", label]
        done = run_git(Path(folder), *argv, "ours", "base", "theirs")
    if not 0 <= done.returncode <= _MAX_CONFLICTS:
        raise ToolError(f"failed: {message_of(done)}", field="git merge-file")
    return MergeResult(done.stdout, done.returncode)


def _only_crlf(content: bytes) -> bool:
    lines = content.count(b"\n")
    return lines > 0 and content.count(b"\r\n") == lines
