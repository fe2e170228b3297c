"""Creates the folder of a project, completely or not at all.

A new folder is built next to its destination and renamed. An existing empty folder stays (it may be a mount, or the
current folder of a shell): the project is built in a folder inside it, and its entries are then moved up. If a run is
killed while it moves them, the next run finishes.

    .NAME.tidemill-XXXX/        next to a new folder: lock, project/
    NAME/.tidemill-init-XXXX/   inside an existing folder: lock, project/, and `whole` while the entries are moved
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from ...runtime.common.errors import UserError
from . import dependency, template_base
from .answers import Answers
from .applying import make_folders
from .repository import first_commit
from .tree import TEMPLATE_VERSION, render_project, write_files

_PREFIX = ".tidemill-init-"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Created:
    """A created project.

    Attributes:
        folder: its folder.
        source: where it gets tidemill from, as a sentence.
        unlocked: why it has no `uv.lock`; None if it has one.
        commit: its first commit; None if the folder is inside another Git repository.
        files: the generated files.
    """

    folder: Path
    source: str
    unlocked: str | None
    commit: str | None
    files: list[PurePosixPath] = field(default_factory=list[PurePosixPath])


def create(
    folder: Path, answers: Answers, *, templates: Path | None = None, say: Callable[[str], None] = lambda _: None
) -> Created:
    """Create the project of `answers` in `folder`, which must be new or empty.

    Args:
        folder: the destination.
        answers: the answers of the team.
        templates: folder of another version of the template.
        say: receives the name of each slow step.

    Raises:
        UserError: the folder is not empty or cannot be written; nothing was changed.
        ToolError: Git is missing.
        PlatformError: the wheel cannot be built.
    """
    tree = render_project(answers, templates)
    place = Path(os.path.abspath(folder))  # noqa: PTH100 - a link to a folder stays one
    check_folder(place)
    try:
        with _work_folder(place) as work:
            project = work / "project"
            project.mkdir()
            write_files(project, {**tree, **template_base.base_files(answers, TEMPLATE_VERSION, tree)})
            say("finding the source of tidemill")
            source = dependency.require(project)
            say("locking the dependencies")
            unlocked = dependency.lock(project)
            commit = first_commit(project, place, "Generate the project from the tidemill template")
            with _signals_blocked():
                _publish(work, place)
    except OSError as error:
        where = error.filename2 or error.filename or place
        raise UserError(
            f"cannot be written ({error.strerror}); nothing was created", field=str(where), hint="use another folder"
        ) from None
    return Created(place, source, unlocked, commit, list(tree))


def check_folder(folder: Path) -> None:
    """Check that `folder` is new or empty; remove or finish what killed runs left there.

    Raises:
        UserError: it is not a folder, or not empty, or the project of a killed run was finished.
    """
    place = Path(os.path.abspath(folder))  # noqa: PTH100 - as above
    if not place.exists() and not place.is_symlink():
        return
    if not place.is_dir():
        raise UserError("is not a folder", field="DIR", value=str(place), hint="use a new or empty folder")
    try:
        if finished := _clean_up(place, _PREFIX):
            raise UserError(
                "already has a project: an earlier run was killed at its last step, and this run finished it",
                field="DIR", value=str(finished), hint="use the project: it is complete",
            )  # fmt: skip
        first = next(iter(sorted(path.name for path in place.iterdir())), None)
    except OSError as error:
        raise UserError(
            f"cannot be read ({error.strerror})", field="DIR", value=str(place), hint="use another folder"
        ) from None
    if first is not None:
        raise UserError(
            f"is not empty (it contains {first})", field="DIR", value=str(place), hint="use a new or empty folder"
        )


@contextlib.contextmanager
def _work_folder(place: Path) -> Generator[Path]:
    """Yield a temporary folder on the file system of `place`."""
    inside = place.is_dir()
    parent = place if inside else place.parent
    made = make_folders(parent)
    prefix = _PREFIX if inside else f".{place.name}.tidemill-"
    try:
        if not inside:
            _clean_up(parent, prefix)
        work = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = FileLock(work / "lock", timeout=0)
        try:
            with lock:
                yield work
        finally:
            with _signals_blocked():
                shutil.rmtree(work, ignore_errors=True)
    except BaseException:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _clean_up(parent: Path, prefix: str) -> Path | None:
    """Remove what killed runs left in `parent`; return the folder of a project that was finished, or None."""
    finished = None
    for left in sorted(parent.glob(f"{prefix}*")):
        try:
            with FileLock(left / "lock", timeout=0):
                if (left / "whole").exists():
                    with _signals_blocked():
                        _move_up(left, parent)
                    finished = parent
                shutil.rmtree(left)
        except Timeout:  # its run still works
            continue
    return finished


def _publish(work: Path, place: Path) -> None:
    if work.parent != place:
        (work / "project").rename(place)
        return
    (work / "whole").touch()
    _move_up(work, place)


def _move_up(work: Path, place: Path) -> None:
    for entry in sorted((work / "project").iterdir()):
        entry.rename(place / entry.name)


@contextlib.contextmanager
def _signals_blocked() -> Generator[None]:
    """Block signals during the last step and the cleanup."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
