"""Writes several files of a project, all or none.

`apply` first writes the complete plan to `.tidemill/update/`, then replaces each file by one rename. After an error it
restores the old files. If the process was killed, `finish` completes the plan, provided that the files have not changed
since.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout

from ...runtime.common.errors import RefusedError, UserError
from ...runtime.common.files import replacement
from .tree import ProjectFile

_HOME = ".tidemill"
_PLAN = "plan.json"


@dataclass(frozen=True)
class _Step:
    """The change of one file: hashes of its content before and after; None means no file."""

    path: PurePosixPath
    before: str | None
    after: str | None
    executable: bool


def apply(project: Path, files: Mapping[PurePosixPath, ProjectFile | None]) -> None:
    """Write `files` into `project` in the given order, all or none; None removes a file.

    Raises:
        UserError: a file cannot be written; nothing was changed.
        RefusedError: another update is running, or an interrupted one is unfinished; nothing was changed.
    """
    with _lock(project):
        folder = project / _HOME / "update"
        if folder.exists():
            raise RefusedError(
                "an interrupted update is not finished", field=str(project), hint="run `tidemill update`"
            )
        steps = [
            _Step(path, _digest(project / path), _sha(file.content) if file else None, bool(file and file.executable))
            for path, file in files.items()
        ]
        try:
            _write_plan(folder, steps, files)
            _execute(project, folder, steps)
        except OSError as error:
            where = error.filename2 or error.filename
            raise UserError(
                f"cannot be written ({error.strerror}); nothing was changed",
                field=str(where or project),
                hint="make it writable, then run the command again",
            ) from None


def interrupted(project: Path) -> bool:
    """Return whether `project` has an interrupted `apply` for `finish` to complete."""
    return (project / _HOME / "update").exists()


def finish(project: Path) -> list[PurePosixPath]:
    """Complete an interrupted `apply`, if there is one, and return its files.

    Raises:
        RefusedError: files were changed since; names them.
        UserError: a file cannot be written.
    """
    folder = project / _HOME / "update"
    if not interrupted(project):
        return []
    with _lock(project):
        if not folder.exists():
            return []
        raw: list[dict[str, Any]] = json.loads((folder / _PLAN).read_text(encoding="utf-8"))
        steps = [_Step(PurePosixPath(e["path"]), e["before"], e["after"], e["executable"]) for e in raw]
        changed = [step.path for step in steps if _digest(project / step.path) not in (step.before, step.after)]
        if changed:
            raise RefusedError(
                "an update was interrupted, and files that it must write have changed since",
                field=", ".join(map(str, changed)),
                hint=f"save your changes and run `git restore` on the files, or cancel the update: `rm -r {folder}`",
            )
        try:
            _execute(project, folder, steps)
        except OSError as error:
            raise UserError(f"cannot be written ({error.strerror})", field=str(error.filename)) from None
        return [step.path for step in steps]


@contextlib.contextmanager
def _lock(project: Path) -> Generator[None]:
    home = project / _HOME
    new = not home.exists()
    home.mkdir(exist_ok=True)
    lock = FileLock(home / "update.lock", timeout=0)
    try:
        with lock:
            yield
    except Timeout:
        raise RefusedError("another update is running", field=str(project), hint="wait until it ends") from None
    finally:
        if new:
            with contextlib.suppress(OSError):  # not empty: a stack came up meanwhile and uses the folder
                (home / "update.lock").unlink(missing_ok=True)
                home.rmdir()


def _write_plan(folder: Path, steps: list[_Step], files: Mapping[PurePosixPath, ProjectFile | None]) -> None:
    """Write the plan and the new contents to `folder`, which appears complete."""
    for left in folder.parent.glob("update-*.partial"):
        shutil.rmtree(left)  # left by a killed run
    work = Path(tempfile.mkdtemp(prefix="update-", suffix=".partial", dir=folder.parent))
    try:
        for step in steps:
            file = files[step.path]
            if file is not None and step.after is not None:
                _write(work / step.after, file.content)
        plan = [
            {"path": str(step.path), "before": step.before, "after": step.after, "executable": step.executable}
            for step in steps
        ]
        _write(work / _PLAN, json.dumps(plan, indent=1).encode())
        work.rename(folder)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _execute(project: Path, folder: Path, steps: list[_Step]) -> None:
    """Execute all steps; after an error, restore every file."""
    undo: list[Callable[[], None]] = []
    made: list[Path] = []
    try:
        # Remove files first: a file may become a folder.
        for step in sorted(steps, key=lambda step: step.after is not None):
            place = project / step.path
            if step.after is None:
                if place.exists():
                    undo.append(_restorer(place))
                    place.unlink()
                    _remove_empty(place.parent, project)
                continue
            mode = _mode(place, step.executable)
            if _digest(place) == step.after and place.stat().st_mode & 0o777 == mode:
                continue
            made += make_folders(place.parent)
            undo.append(_restorer(place) if place.exists() else partial(place.unlink, missing_ok=True))
            _write(place, (folder / step.after).read_bytes(), mode)
    except BaseException:
        for back in reversed(undo):
            back()
        for empty in reversed(made):
            with contextlib.suppress(OSError):
                empty.rmdir()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder)


def _restorer(place: Path) -> Callable[[], None]:
    content, mode = place.read_bytes(), place.stat().st_mode

    def restore() -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        _write(place, content, mode & 0o777)

    return restore


def _mode(place: Path, executable: bool) -> int:
    """Return the mode of the file at `place`, executable for all who can read it, or for none."""
    old = place.stat().st_mode & 0o777 if place.exists() else 0o644
    return old | (old & 0o444) >> 2 if executable else old & ~0o111


def make_folders(folder: Path) -> list[Path]:
    """Create `folder` and its parents; return the new ones, parents first."""
    missing: list[Path] = []
    while not folder.exists():
        missing.insert(0, folder)
        folder = folder.parent
    for new in missing:
        new.mkdir()
    return missing


def _remove_empty(folder: Path, project: Path) -> None:
    with contextlib.suppress(OSError):  # not empty
        while folder != project:
            folder.rmdir()
            folder = folder.parent


def _write(place: Path, content: bytes, mode: int = 0o644) -> None:
    # The name is fixed, so that the next run overwrites what a killed run left.
    work = place.with_name(f".{place.name[:200]}.tidemill-partial")
    with replacement(place, partial=work, mode=mode) as file:
        file.write(content)


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest(place: Path) -> str | None:
    return _sha(place.read_bytes()) if place.is_file() else None
