"""Merges the lines of one file three ways, by `git merge-file`; no line of the team is lost.

What both sides changed stays, between markers, as it was here, in the template before and in the template now.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ...runtime.common.errors import ToolError

__all__ = ["Labels", "Merged", "is_binary", "merge_lines"]

_LOOKED_AT = 8000  # as Git: a file is binary when there is a zero among its first bytes
_MOST_CONFLICTS = 127  # git-merge-file(1): the exit code is the number of conflicts, or more than that for a failure


@dataclass(frozen=True)
class Labels:
    """What the markers of a conflict say of each side."""

    ours: str
    base: str
    theirs: str


@dataclass(frozen=True)
class Merged:
    """The lines of both sides.

    Attributes:
        content: the file.
        conflicts: how many places in it are for a human to decide.
    """

    content: bytes
    conflicts: int


def is_binary(content: bytes) -> bool:
    """Return whether `content` has no lines which could be merged.

    >>> is_binary(b"text"), is_binary(bytes(4))
    (False, True)
    """
    return b"\0" in content[:_LOOKED_AT]


def merge_lines(ours: bytes, base: bytes | None, theirs: bytes, labels: Labels) -> Merged:
    """Return `ours` with the changes from `base` to `theirs`; without a base, the two files laid over one another.

    Lines of `ours` which all end in CRLF, where the template's do not, are merged as if they did not, and end so again.

    Raises:
        ToolError: Git is missing, or fails.
    """
    if _only_crlf(ours) and not (b"\r\n" in theirs or b"\r\n" in (base or b"")):
        merged = merge_lines(ours.replace(b"\r\n", b"\n"), base, theirs, labels)
        return Merged(merged.content.replace(b"\n", b"\r\n"), merged.conflicts)
    # An empty base has nothing to show: without it Git also takes what both sides have in common out of the conflict.
    style = ["-c", "merge.conflictStyle=merge"] if base is None else []
    with tempfile.TemporaryDirectory(prefix="tidemill-merge-") as folder:
        for name, content in (("ours", ours), ("base", base or b""), ("theirs", theirs)):
            (Path(folder) / name).write_bytes(content)
        argv = ["git", *style, "merge-file", "-p", *(["--diff3"] if base is not None else [])]
        for label in (labels.ours, labels.base, labels.theirs):
            argv += ["-L", label]
        try:
            done = subprocess.run([*argv, "ours", "base", "theirs"], cwd=folder, capture_output=True, check=False)
        except FileNotFoundError:
            raise ToolError("Git is not here", field="git", hint="install it") from None
    if not 0 <= done.returncode <= _MOST_CONFLICTS:
        raise ToolError(f"could not merge: {done.stderr.decode(errors='replace').strip()}", field="git merge-file")
    return Merged(done.stdout, done.returncode)


def _only_crlf(content: bytes) -> bool:
    lines = content.count(b"\n")
    return lines > 0 and content.count(b"\r\n") == lines
