"""Finds renamed files by Git's similarity measure."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ...runtime.common.errors import ToolError
from .git_command import message_of, run_git

_SIMILARITY = "50%"  # Git's default


def find_renames(
    removed: Mapping[PurePosixPath, bytes], added: Mapping[PurePosixPath, bytes]
) -> dict[PurePosixPath, PurePosixPath]:
    """Return the renames from `removed` to `added`: pairs of files of which at least half is equal.

    Raises:
        ToolError: Git is missing, or fails.
    """
    # Git would pair any two empty files.
    removed = {path: content for path, content in removed.items() if content}
    added = {path: content for path, content in added.items() if content}
    if not removed or not added:
        return {}
    # Folders are numbered: one path can be a file before and a folder after.
    before, after = dict(enumerate(removed)), dict(enumerate(added))
    with tempfile.TemporaryDirectory(prefix="tidemill-renames-") as folder:
        for side, paths, files in (("a", before, removed), ("b", after, added)):
            for number, path in paths.items():
                # The sides have different names; Git would take equal names for the same file.
                place = Path(folder, side, f"{side}{number}", path.name)
                place.parent.mkdir(parents=True)
                place.write_bytes(files[path])
        options = ("--no-index", "--raw", "-z", f"-M{_SIMILARITY}", "-l0", "--diff-filter=R")
        done = run_git(Path(folder), "diff", *options, "a", "b")
    if done.returncode not in (0, 1):  # 1 means differences
        raise ToolError(f"failed: {message_of(done)}", field="git diff")
    # `--raw -z`: `:modes hashes R<similarity>`, old path, new path, each ended by a zero.
    words = done.stdout.decode().split("\0")
    found: dict[PurePosixPath, PurePosixPath] = {}
    for start in range(0, len(words) - 2, 3):
        old, new = (int(PurePosixPath(word).parts[1][1:]) for word in words[start + 1 : start + 3])
        found[before[old]] = after[new]
    return found
