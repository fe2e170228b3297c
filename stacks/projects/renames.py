"""Finds which file became which, by Git's own measure of likeness."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ...runtime.common.errors import ToolError

__all__ = ["find_renames"]

_LIKENESS = "50%"  # Git's default


def find_renames(
    gone: Mapping[PurePosixPath, bytes], come: Mapping[PurePosixPath, bytes]
) -> dict[PurePosixPath, PurePosixPath]:
    """Return the pairs of a file in `gone` and the file in `come` which it became: at least half of it is the same.

    Raises:
        ToolError: Git is missing, or fails.
    """
    # Git takes any two empty files for one another.
    gone = {path: content for path, content in gone.items() if content}
    come = {path: content for path, content in come.items() if content}
    if not gone or not come:
        return {}
    # Numbers stand for the paths: a path which is a file before and a folder after could not be written side by side.
    before, after = dict(enumerate(gone)), dict(enumerate(come))
    with tempfile.TemporaryDirectory(prefix="tidemill-renames-") as folder:
        for side, paths, files in (("a", before, gone), ("b", after, come)):
            for number, path in paths.items():
                # The names differ between the sides, or Git would take equal numbers for the same file.
                place = Path(folder, side, f"{side}{number}", path.name)
                place.parent.mkdir(parents=True)
                place.write_bytes(files[path])
        argv = ["git", "diff", "--no-index", "--raw", "-z", f"-M{_LIKENESS}", "-l0", "--diff-filter=R", "a", "b"]
        try:
            done = subprocess.run(argv, cwd=folder, capture_output=True, check=False)
        except FileNotFoundError:
            raise ToolError("Git is not here", field="git", hint="install it") from None
    if done.returncode not in (0, 1):  # 1: there are differences
        raise ToolError(f"could not compare: {done.stderr.decode(errors='replace').strip()}", field="git diff")
    # `--raw -z`: `:modes hashes R<likeness>`, old path, new path, each ended by a zero.
    words = done.stdout.decode().split("\0")
    found: dict[PurePosixPath, PurePosixPath] = {}
    for start in range(0, len(words) - 2, 3):
        old, new = (int(PurePosixPath(word).parts[1][1:]) for word in words[start + 1 : start + 3])
        found[before[old]] = after[new]
    return found
