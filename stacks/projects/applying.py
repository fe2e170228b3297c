"""Writes many files of a project as one step.

What is to be written is first put down whole in `.tidemill/update/`; only then are the files touched, each by one
rename. An error on the way is taken back. After an interruption which leaves no time for that, `finish` writes what is
missing, as long as nobody has changed the files meanwhile; until then Git still has every file as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout

from ...runtime.common.errors import RefusedError, UserError
from ...runtime.common.files import replacement
from .tree import Rendered

__all__ = ["apply", "finish", "interrupted"]

_HOME = ".tidemill"
_PLAN = "plan.json"


@dataclass(frozen=True)
class _Step:
    """One file: from which content to which; None where there is no file."""

    path: PurePosixPath
    before: str | None
    after: str | None
    executable: bool


def apply(project: Path, files: Mapping[PurePosixPath, Rendered | None]) -> None:
    """Write `files` into `project`, all or none; None removes one. The last of them is written last.

    Raises:
        UserError: a file cannot be written; nothing is changed.
        RefusedError: another run is at work, or an interrupted one was not finished; nothing is changed.
    """
    with _alone(project):
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
            _put_down(folder, steps, files)
            _carry_out(project, folder, steps)
        except OSError as error:
            where = error.filename2 or error.filename
            raise UserError(
                f"cannot be written ({error.strerror}); nothing was changed",
                field=str(where or project),
                hint="make it writable and free, then run the command again",
            ) from None


def interrupted(project: Path) -> bool:
    """Return whether an `apply` in `project` was interrupted, which `finish` would finish."""
    return (project / _HOME / "update").exists()


def finish(project: Path) -> list[PurePosixPath]:
    """Finish what an interrupted `apply` left, and return the files it was about; none where there was nothing.

    Raises:
        RefusedError: files were changed since; names them.
        UserError: a file cannot be written.
    """
    folder = project / _HOME / "update"
    if not interrupted(project):
        return []
    with _alone(project):
        if not folder.exists():
            return []
        raw: list[dict[str, Any]] = json.loads((folder / _PLAN).read_text(encoding="utf-8"))
        steps = [_Step(PurePosixPath(e["path"]), e["before"], e["after"], e["executable"]) for e in raw]
        changed = [step.path for step in steps if _digest(project / step.path) not in (step.before, step.after)]
        if changed:
            raise RefusedError(
                "an update was interrupted, and since then files were changed which it has to write",
                field=", ".join(map(str, changed)),
                hint=f"put your changes aside and run `git restore` on them, or give the update up: `rm -r {folder}`",
            )
        try:
            _carry_out(project, folder, steps)
        except OSError as error:
            raise UserError(f"cannot be written ({error.strerror})", field=str(error.filename)) from None
        return [step.path for step in steps]


@contextlib.contextmanager
def _alone(project: Path) -> Generator[None]:
    home = project / _HOME
    new = not home.exists()
    home.mkdir(exist_ok=True)
    lock = FileLock(home / "update.lock", timeout=0)
    try:
        with lock:
            yield
    except Timeout:
        raise RefusedError("another update is at work here", field=str(project), hint="wait for it") from None
    finally:
        if new:
            with contextlib.suppress(OSError):  # a stack came up meanwhile: then the folder is its
                (home / "update.lock").unlink(missing_ok=True)
                home.rmdir()


def _put_down(folder: Path, steps: list[_Step], files: Mapping[PurePosixPath, Rendered | None]) -> None:
    """Write the whole plan, which is there from one moment to the next."""
    for left in folder.parent.glob("update-*.partial"):
        shutil.rmtree(left)  # of a run which was killed
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


def _carry_out(project: Path, folder: Path, steps: list[_Step]) -> None:
    """Bring every file to what the plan says, or back to what it was."""
    undo: list[Callable[[], None]] = []
    made: list[Path] = []
    try:
        # First what goes away: a file may become a folder.
        for step in sorted(steps, key=lambda step: step.after is not None):
            place = project / step.path
            if step.after is None:
                if place.exists():
                    undo.append(_restorer(place))
                    place.unlink()
                    _prune(place.parent, project)
                continue
            mode = _mode(place, step.executable)
            if _digest(place) == step.after and place.stat().st_mode & 0o777 == mode:
                continue
            made += _make_folders(place.parent)
            undo.append(_restorer(place) if place.exists() else _remover(place))
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


def _remover(place: Path) -> Callable[[], None]:
    return lambda: place.unlink(missing_ok=True)


def _mode(place: Path, executable: bool) -> int:
    """Return the mode of the file at `place`, executable for whoever may read it, or for nobody."""
    old = place.stat().st_mode & 0o777 if place.exists() else 0o644
    return old | (old & 0o444) >> 2 if executable else old & ~0o111


def _make_folders(folder: Path) -> list[Path]:
    missing: list[Path] = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir()
    return missing[::-1]


def _prune(folder: Path, project: Path) -> None:
    with contextlib.suppress(OSError):  # not empty: it stays
        while folder != project:
            folder.rmdir()
            folder = folder.parent


def _write(place: Path, content: bytes, mode: int = 0o644) -> None:
    # One name for each file, so that what a killed run left is written over by the next.
    work = place.with_name(f".{place.name[:200]}.tidemill-partial")
    with replacement(place, partial=work, mode=mode) as file:
        file.write(content)


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest(place: Path) -> str | None:
    return _sha(place.read_bytes()) if place.is_file() else None
