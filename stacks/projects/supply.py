"""Moves a project's own tidemill along: the line of `pyproject.toml` which says where it comes from, wheel and lock.

The line is no part of the template, since it names a release. It is taken out before `pyproject.toml` is merged, or
every template which changes the end of that file would be in conflict with it, and put in again afterwards.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

from ...runtime.common.errors import TidemillError
from . import dependency
from .merging import Change
from .rehearsal import rehearsed
from .tree import Rendered
from .worktree import WorkTree

__all__ = ["PYPROJECT", "Source", "SuppliedTree", "Supply", "current_source", "put_in", "taken_out"]

PYPROJECT = PurePosixPath("pyproject.toml")
_LOCK = PurePosixPath("uv.lock")
_WHEELS = "tidemill-*.whl"
_HEADER = "[tool.uv.sources]\n"
_FROM_INDEX = re.compile(r'^constraint-dependencies = \["tidemill==[^"\]]+"\]\n', re.MULTILINE)
_FROM_WHEEL = re.compile(rf'^tidemill = {{ path = "{dependency.VENDOR}/[^"/]+\.whl" }}\n', re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """Where a project gets tidemill from.

    Attributes:
        line: the line of `pyproject.toml`.
        wheel: name and content of the wheel in the project; None where the index has it.
    """

    line: str
    wheel: tuple[str, bytes] | None = None


def current_source() -> Source:
    """Return where a project of today gets this tidemill from.

    Raises:
        TidemillError: the wheel cannot be built.
    """
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / PYPROJECT).write_text("[tool.uv]\n", encoding="utf-8")
        dependency.require(project)
        line = taken_out((project / PYPROJECT).read_text(encoding="utf-8"))[1]
        assert line is not None  # noqa: S101 - it was just written
        wheels = list((project / dependency.VENDOR).glob("*.whl"))
        return Source(line, (wheels[0].name, wheels[0].read_bytes()) if wheels else None)


def taken_out(text: str) -> tuple[str, str | None]:
    r"""Return `text` of a `pyproject.toml` without the line which says where tidemill comes from, and that line.

    >>> taken_out('[tool.uv]\npackage = false\nconstraint-dependencies = ["tidemill==1.0"]\n')
    ('[tool.uv]\npackage = false\n', 'constraint-dependencies = ["tidemill==1.0"]\n')
    """
    for pattern in (_FROM_INDEX, _FROM_WHEEL):
        if found := pattern.search(text):
            before, after = text[: found.start()], text[found.end() :]
            if before.endswith(_HEADER) and not after.split("\n")[0].strip("\r").strip():
                # Nothing else is in that table: it goes too, with the blank line before it.
                before = before.removesuffix(_HEADER).removesuffix("\n")
            return before + after, found[0]
    return text, None


def put_in(text: str, line: str) -> str:
    """Return `text` of a `pyproject.toml` with the line which says where tidemill comes from."""
    if text and not text.endswith("\n"):
        text += "\n"
    if _FROM_WHEEL.match(line):
        if _HEADER in text:
            return text.replace(_HEADER, _HEADER + line, 1)
        return f"{text}\n{_HEADER}{line}"
    lines = text.splitlines(keepends=True)
    if "[tool.uv]\n" not in lines:
        return f"{text}\n[tool.uv]\n{line}"
    end = lines.index("[tool.uv]\n") + 1
    last = end
    while end < len(lines) and not lines[end].startswith("["):
        end += 1
        if lines[end - 1].strip():
            last = end
    return "".join([*lines[:last], line, *lines[last:]])


class SuppliedTree(WorkTree):
    """A project whose `pyproject.toml` does not say where tidemill comes from, like the template's."""

    def file(self, path: PurePosixPath) -> Rendered | None:
        """Return the file at `path`, or None where nothing is."""
        found = super().file(path)
        if found is None or path != PYPROJECT:
            return found
        text = taken_out(found.content.decode(errors="surrogateescape"))[0]
        return Rendered(text.encode(errors="surrogateescape"), found.executable)


class Supply:
    """What an update does about tidemill itself.

    Args:
        source: tells where a project of today gets it from.
        lock: writes the lock of the project in a folder, and returns why it could not.
    """

    def __init__(
        self,
        source: Callable[[], Source] = current_source,
        lock: Callable[[Path], str | None] = dependency.lock,
    ) -> None:
        self.source, self.lock = source, lock

    @classmethod
    def kept(cls, project: Path) -> Supply:
        """Return one which leaves the tidemill of `project` where it is."""

        def source() -> Source:
            line = taken_out((project / PYPROJECT).read_text(encoding="utf-8", errors="surrogateescape"))[1]
            wheels = [(path.name, path.read_bytes()) for path in sorted((project / dependency.VENDOR).glob(_WHEELS))]
            return Source(line or "", wheels[0] if wheels else None)

        return cls(source, lambda _: None)

    def moved(self, team: WorkTree, merged: Change | None) -> list[Change]:
        """Return what becomes of `pyproject.toml` and of the wheel.

        Args:
            team: the project.
            merged: what the template does to `pyproject.toml` without the line, or None.
        """
        file = team.file(PYPROJECT)
        text = file.content.decode(errors="surrogateescape") if file else ""
        rest, old = taken_out(text)
        if file is None or old is None or (merged is not None and merged.file is None):
            return [merged] if merged else []  # the team has put that in order in another way
        new = self.source()
        found: list[Change] = []
        if merged is not None and merged.file is not None:
            content = put_in(merged.file.content.decode(errors="surrogateescape"), new.line)
            done = Rendered(content.encode(errors="surrogateescape"), merged.file.executable)
            found.append(Change(merged.path, merged.kind, merged.note, done, merged.removes))
        elif new.line != old:
            same = bool(_FROM_WHEEL.match(old)) == bool(_FROM_WHEEL.match(new.line))
            content = text.replace(old, new.line) if same else put_in(rest, new.line)
            done = Rendered(content.encode(errors="surrogateescape"), file.executable)
            found.append(Change(PYPROJECT, "updated", "where tidemill comes from", done))
        return found + self._wheels(team, new)

    def _wheels(self, team: WorkTree, new: Source) -> list[Change]:
        folder = PurePosixPath(dependency.VENDOR)
        have = [folder / path.name for path in sorted((team.project / folder).glob(_WHEELS))]
        name = folder / new.wheel[0] if new.wheel else None
        found = [Change(path, "removed", removes=path) for path in have if path != name]
        if new.wheel is None or name is None:
            return found
        file = team.file(name)
        if file is None or _members(file.content) != _members(new.wheel[1]):
            found.append(Change(name, "updated" if file else "added", file=Rendered(new.wheel[1])))
        return found

    def locked(self, team: WorkTree, changes: list[Change]) -> tuple[list[Change], str | None]:
        """Return what becomes of the lock when `changes` are made, and why it could not be written, or None."""
        concerns = (PYPROJECT, PurePosixPath(dependency.VENDOR))
        about = [one for one in changes if any(path.is_relative_to(top) for path in one.touched for top in concerns)]
        old = team.file(_LOCK)
        if not about or old is None:
            return [], None
        if any(one.kind == "conflict" for one in about):
            return [], "pyproject.toml has conflicts"
        files: dict[PurePosixPath, Rendered | None] = {_LOCK: old}
        for one in about:
            if one.removes is not None:
                files[one.removes] = None
            if one.file is not None:
                files[one.path] = one.file
        with rehearsed(team.project, files) as root:
            try:
                why = self.lock(root)
            except TidemillError as error:
                why = str(error)
            if why is not None:
                return [], why
            new = Rendered((root / _LOCK).read_bytes(), old.executable)
        return ([] if new == old else [Change(_LOCK, "updated", file=new)]), None


def _members(wheel: bytes) -> object:
    """Return what is in `wheel`: a wheel which is built again has other times, and other bytes."""
    try:
        with zipfile.ZipFile(BytesIO(wheel)) as archive:
            return sorted((one.filename, one.CRC) for one in archive.infolist())
    except zipfile.BadZipFile:
        return wheel
