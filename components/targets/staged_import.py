"""What the targets which keep a stack's secrets on this machine have in common when its contents move."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

from ...runtime.common.files import write_private
from ..layout import StackRoot
from ..provider.local.files import read_json

__all__ = ["Attempt", "attempt_at", "jobs_in", "secrets_in"]


def attempt_at(root: Path) -> Path:
    """Return the folder of an unfinished import into the stack at `root`."""
    return root.with_name(f".{root.name}.importing")


def secrets_in(root: StackRoot) -> dict[str, str]:
    """Return the secrets of a stack: name -> value."""
    files = sorted(root.secrets.iterdir()) if root.secrets.is_dir() else []
    return {path.name: path.read_text(encoding="utf-8").strip() for path in files if path.name[0] != "."}


def jobs_in(root: StackRoot) -> dict[str, str]:
    """Return the jobs of a stack which ran to a good end: name -> digest of what triggers them."""
    folder = root.path / "jobs"
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    done = {name: read_json(root.job(name) / "done.json") or {} for name in names}
    return {name: str(end["digest"]) for name, end in done.items() if end.get("exit_code") == 0}


class Attempt:
    """A folder beside the stack's, in which everything is written, and which becomes the stack's at the end.

    Args:
        root: where the stack will be.
    """

    def __init__(self, root: StackRoot) -> None:
        self._final = root
        self._attempt = attempt_at(root.path)
        self._root = StackRoot(self._attempt / "root")

    def go_on_with(self, archive: str) -> bool:
        """Make the folder, or take that of an earlier attempt with the same archive; return whether there was one."""
        mark = self._attempt / "import.json"
        again = (read_json(mark) or {}).get("archive") == archive
        if not again:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self._attempt)
        for folder in (self._attempt, self._root.path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(mark, json.dumps({"archive": archive}))
        return again

    def secret(self, name: str, value: str) -> None:
        """See `NewEnds`."""
        write_private(self._root.secrets / name, value)

    def job(self, name: str, digest: str) -> None:
        """See `NewEnds`."""
        write_private(self._root.job(name) / "done.json", json.dumps({"digest": digest, "exit_code": 0}))

    def finish(self) -> None:
        """See `NewEnds`."""
        self._root.path.rename(self._final.path)
        shutil.rmtree(self._attempt)
