"""The parts of a migration that targets share if they keep secrets and jobs on this machine. Imports no Pulumi."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

from ...runtime.common.errors import UnreachableError
from ...runtime.common.files import write_private
from ..layout import StackRoot
from ..provider.local.files import read_json, secret_value
from .http_get import is_healthy
from .migration import LakeServer


def staging_folder(root: Path) -> Path:
    """Return the folder of an unfinished import into the stack at `root`."""
    return root.with_name(f".{root.name}.importing")


def read_secrets(root: StackRoot) -> dict[str, str]:
    """Return the secrets of a stack: name -> value."""
    files = sorted(root.secrets.iterdir()) if root.secrets.is_dir() else []
    return {path.name: path.read_text(encoding="utf-8").strip() for path in files if path.name[0] != "."}


def finished_jobs(root: StackRoot) -> dict[str, str]:
    """Return the jobs of a stack that succeeded: name -> digest of their triggers."""
    folder = root.path / "jobs"
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    done = {name: read_json(root.job(name) / "done.json") or {} for name in names}
    return {name: str(end["digest"]) for name, end in done.items() if end.get("exit_code") == 0}


def lake_server(url: str, root: StackRoot) -> LakeServer:
    """Return the lakeFS server at `url` with the key pair of the stack."""
    return LakeServer(url, secret_value(root, "lakefs-key-id"), secret_value(root, "lakefs-secret"))


def running_lake(url: str | None, root: StackRoot) -> LakeServer:
    """Return the lakeFS server at `url`, which must answer.

    Raises:
        UnreachableError: it does not run.
    """
    if url is None or not is_healthy(f"{url}/_health"):
        raise UnreachableError("lakeFS does not run", field="lakefs", hint="run `tidemill start`")
    return lake_server(url, root)


class StagedImport:
    """A folder beside the stack's folder into which an import writes, and which becomes the stack's at the end.

    Args:
        root: the folder that the stack will have.
    """

    def __init__(self, root: StackRoot) -> None:
        self._final = root
        self._staging = staging_folder(root.path)
        self._root = StackRoot(self._staging / "root")

    def resume_or_begin(self, archive: str) -> bool:
        """Create the folder, or keep that of an earlier attempt with the same archive; return whether there was one."""
        mark = self._staging / "import.json"
        resumed = (read_json(mark) or {}).get("archive") == archive
        if not resumed:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self._staging)
        for folder in (self._staging, self._root.path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(mark, json.dumps({"archive": archive}))
        return resumed

    def secret(self, name: str, value: str) -> None:
        """See `MigrationDestination`."""
        write_private(self._root.secrets / name, value)

    def job(self, name: str, digest: str) -> None:
        """See `MigrationDestination`."""
        write_private(self._root.job(name) / "done.json", json.dumps({"digest": digest, "exit_code": 0}))

    def finish(self) -> None:
        """See `MigrationDestination`."""
        self._root.path.rename(self._final.path)
        shutil.rmtree(self._staging)
