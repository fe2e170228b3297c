"""Makes a project's folder: whole, or not at all.

A new folder is made beside its place and put there by one rename. Where the folder is there already, empty, it is
somebody's place (a shell may stand in it, it may be a mount): it is made inside, in a folder of its own, and when it is
whole its entries are moved up. A run which is killed in that last moment is finished by the next.

    .NAME.tidemill-XXXX/        beside: lock, project/
    NAME/.tidemill-init-XXXX/   inside: lock, project/, and `whole` once the entries are being moved
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from ...runtime.common.errors import UserError
from . import dependency, template_base
from .answers import Answers
from .repository import first_commit
from .tree import TEMPLATE_VERSION, Rendered, rendered

__all__ = ["Created", "check_folder", "create"]

_PREFIX = ".tidemill-init-"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Created:
    """A project which was made.

    Attributes:
        folder: where it is.
        source: where it gets tidemill from, in words.
        unlocked: why it has no `uv.lock`; None where it has.
        commit: its first commit; None where it lies in a repository of somebody else.
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
    """Make the project of `answers` in `folder`, which does not exist or is empty.

    Args:
        folder: where it goes.
        answers: what the team said.
        templates: the folder of another version of the template.
        say: told each step which takes time.

    Raises:
        UserError: the folder has something in it, or cannot be written; nothing is changed then.
        ToolError: Git is missing.
        PlatformError: the wheel cannot be built.
    """
    tree = rendered(answers, templates)
    place = Path(os.path.abspath(folder))  # noqa: PTH100 - a link to a folder stays one
    check_folder(place)
    try:
        with _work(place) as work:
            project = work / "project"
            project.mkdir()
            _write(project, tree)
            template_base.write(project, answers, TEMPLATE_VERSION, tree)
            say("looking where tidemill comes from")
            source = dependency.require(project)
            say("locking the dependencies")
            unlocked = dependency.lock(project)
            commit = first_commit(project, place, "Generate the project from the template of tidemill")
            with _undisturbed():
                _put(work, place)
    except OSError as error:
        where = error.filename2 or error.filename or place
        raise UserError(
            f"cannot be written ({error.strerror}); nothing was made", field=str(where), hint="name another folder"
        ) from None
    return Created(place, source, unlocked, commit, list(tree))


def check_folder(folder: Path) -> None:
    """Check that a project can be made in `folder`; what killed runs left there is put away, or finished.

    Raises:
        UserError: it is no folder, or has something in it.
    """
    place = Path(os.path.abspath(folder))  # noqa: PTH100 - as above
    if not place.exists() and not place.is_symlink():
        return
    if not place.is_dir():
        raise UserError("is not a folder", field="DIR", value=str(place), hint="name a new or empty folder")
    try:
        if finished := _clear(place, _PREFIX):
            raise UserError(
                "an earlier run was killed as it was nearly done; this one finished it",
                field="DIR", value=str(finished), hint="look at the project, it is whole",
            )  # fmt: skip
        first = next(iter(sorted(path.name for path in place.iterdir())), None)
    except OSError as error:
        raise UserError(
            f"cannot be read ({error.strerror})", field="DIR", value=str(place), hint="name another folder"
        ) from None
    if first is not None:
        raise UserError(
            f"is not empty (there is {first})", field="DIR", value=str(place), hint="name a new or empty folder"
        )


@contextlib.contextmanager
def _work(place: Path) -> Generator[Path]:
    """Give a folder to work in, on the file system of `place`, which is gone afterwards."""
    inside = place.is_dir()
    parent = place if inside else place.parent
    made = _make_parents(parent)
    prefix = _PREFIX if inside else f".{place.name}.tidemill-"
    try:
        if not inside:
            _clear(parent, prefix)
        work = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = FileLock(work / "lock", timeout=0)
        try:
            with lock:
                yield work
        finally:
            with _undisturbed():
                shutil.rmtree(work, ignore_errors=True)
    except BaseException:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _make_parents(folder: Path) -> list[Path]:
    missing: list[Path] = []
    while not folder.exists():
        missing.insert(0, folder)
        folder = folder.parent
    for new in missing:
        new.mkdir()
    return missing


def _clear(parent: Path, prefix: str) -> Path | None:
    """Put away what killed runs left in `parent`; return the place of a project which this finished."""
    finished = None
    for left in sorted(parent.glob(f"{prefix}*")):
        try:
            with FileLock(left / "lock", timeout=0):
                if (left / "whole").exists():
                    with _undisturbed():
                        _move_up(left, parent)
                    finished = parent
                shutil.rmtree(left)
        except Timeout:  # another run is at work
            continue
    return finished


def _write(project: Path, tree: Mapping[PurePosixPath, Rendered]) -> None:
    for path, file in tree.items():
        place = project / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.content)
        if file.executable:
            place.chmod(place.stat().st_mode | 0o111)


def _put(work: Path, place: Path) -> None:
    if work.parent != place:
        (work / "project").rename(place)
        return
    (work / "whole").touch()
    _move_up(work, place)


def _move_up(work: Path, place: Path) -> None:
    for entry in sorted((work / "project").iterdir()):
        entry.rename(place / entry.name)


@contextlib.contextmanager
def _undisturbed() -> Generator[None]:
    """Let signals wait for the few moments of the last step and of putting away."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
