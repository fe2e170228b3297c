"""Updates a project's own tidemill: its source line in `pyproject.toml`, the wheel and the lock.

The source line names a release, so it is not part of the template. It is removed before `pyproject.toml` is merged and
added again afterwards. Otherwise it would conflict with each template change at the end of that file.
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
from .merging import Change, written_files
from .overlay import overlay
from .tree import ProjectFile
from .worktree import WorkTree

PYPROJECT = PurePosixPath("pyproject.toml")
_LOCK = PurePosixPath("uv.lock")
_WHEELS = "tidemill-*.whl"
_HEADER = "[tool.uv.sources]\n"
_FROM_INDEX = re.compile(r'^constraint-dependencies = \["tidemill==[^"\]]+"\]\n', re.MULTILINE)
_FROM_WHEEL = re.compile(rf'^tidemill = {{ path = "{dependency.VENDOR}/[^"/]+\.whl" }}\n', re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """The source of tidemill in a project.

    Attributes:
        line: the line of `pyproject.toml`.
        wheel: name and content of the wheel in the project; None if tidemill comes from the index.
    """

    line: str
    wheel: tuple[str, bytes] | None = None


def current_source() -> Source:
    """Return the source that a new project would get.

    Raises:
        TidemillError: the wheel cannot be built.
    """
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / PYPROJECT).write_text("[tool.uv]\n", encoding="utf-8")
        dependency.require(project)
        line = remove_source((project / PYPROJECT).read_text(encoding="utf-8"))[1]
        assert line is not None  # noqa: S101 - it was just written
        wheels = list((project / dependency.VENDOR).glob("*.whl"))
        return Source(line, (wheels[0].name, wheels[0].read_bytes()) if wheels else None)


def remove_source(text: str) -> tuple[str, str | None]:
    r"""Return the text of a `pyproject.toml` without tidemill's source line, and that line.

    >>> remove_source('[tool.uv]\npackage = false\nconstraint-dependencies = ["tidemill==1.0"]\n')
    ('[tool.uv]\npackage = false\n', 'constraint-dependencies = ["tidemill==1.0"]\n')
    """
    for pattern in (_FROM_INDEX, _FROM_WHEEL):
        if found := pattern.search(text):
            before, after = text[: found.start()], text[found.end() :]
            if before.endswith(_HEADER) and not after.split("\n")[0].strip("\r").strip():
                # The table is now empty: remove it and the blank line before it.
                before = before.removesuffix(_HEADER).removesuffix("\n")
            return before + after, found[0]
    return text, None


def add_source(text: str, line: str) -> str:
    """Return the text of a `pyproject.toml` with tidemill's source line added."""
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


class TreeWithoutSource(WorkTree):
    """A project seen without the source line of tidemill in `pyproject.toml`, like the template."""

    def file(self, path: PurePosixPath) -> ProjectFile | None:
        """Return the file at `path`, or None."""
        found = super().file(path)
        if found is None or path != PYPROJECT:
            return found
        text = remove_source(found.content.decode(errors="surrogateescape"))[0]
        return ProjectFile(text.encode(errors="surrogateescape"), found.executable)


class DependencyUpdate:
    """Computes the changes of an update to tidemill itself.

    Args:
        source: returns the source that a new project would get.
        lock: writes the lock of the project in a folder; returns why that failed, or None.
    """

    def __init__(
        self, source: Callable[[], Source] = current_source, lock: Callable[[Path], str | None] = dependency.lock
    ) -> None:
        self.source, self.lock = source, lock

    @classmethod
    def unchanged(cls, project: Path) -> DependencyUpdate:
        """Return one that keeps the tidemill of `project`."""

        def source() -> Source:
            line = remove_source((project / PYPROJECT).read_text(encoding="utf-8", errors="surrogateescape"))[1]
            wheels = [(path.name, path.read_bytes()) for path in sorted((project / dependency.VENDOR).glob(_WHEELS))]
            return Source(line or "", wheels[0] if wheels else None)

        return cls(source, lambda _: None)

    def source_changes(self, team: WorkTree, merged: Change | None) -> list[Change]:
        """Return the changes of `pyproject.toml` and of the wheel.

        Args:
            team: the project.
            merged: the template's change of `pyproject.toml` without the source line, or None.
        """
        file = team.file(PYPROJECT)
        text = file.content.decode(errors="surrogateescape") if file else ""
        rest, old = remove_source(text)
        if file is None or old is None or (merged is not None and merged.file is None):
            return [merged] if merged else []  # the team chose another source
        new = self.source()
        found: list[Change] = []
        if merged is not None and merged.file is not None:
            content = add_source(merged.file.content.decode(errors="surrogateescape"), new.line)
            done = ProjectFile(content.encode(errors="surrogateescape"), merged.file.executable)
            found.append(Change(merged.path, merged.kind, merged.note, done, merged.removes))
        elif new.line != old:
            same = bool(_FROM_WHEEL.match(old)) == bool(_FROM_WHEEL.match(new.line))
            content = text.replace(old, new.line) if same else add_source(rest, new.line)
            done = ProjectFile(content.encode(errors="surrogateescape"), file.executable)
            found.append(Change(PYPROJECT, "updated", "source of tidemill", done))
        return found + self._wheels(team, new)

    def _wheels(self, team: WorkTree, new: Source) -> list[Change]:
        folder = PurePosixPath(dependency.VENDOR)
        existing = [folder / path.name for path in sorted((team.project / folder).glob(_WHEELS))]
        name = folder / new.wheel[0] if new.wheel else None
        found = [Change(path, "removed", removes=path) for path in existing if path != name]
        if new.wheel is None or name is None:
            return found
        file = team.file(name)
        if file is None or _members(file.content) != _members(new.wheel[1]):
            found.append(Change(name, "updated" if file else "added", file=ProjectFile(new.wheel[1])))
        return found

    def lock_changes(self, team: WorkTree, changes: list[Change]) -> tuple[list[Change], str | None]:
        """Return the change of the lock that `changes` require, and why locking failed, or None."""
        inputs = (PYPROJECT, PurePosixPath(dependency.VENDOR))
        relevant = [one for one in changes if any(path.is_relative_to(top) for path in one.touched for top in inputs)]
        old = team.file(_LOCK)
        if not relevant or old is None:
            return [], None
        if any(change.kind == "conflict" for change in relevant):
            return [], "pyproject.toml has conflicts"
        files: dict[PurePosixPath, ProjectFile | None] = {_LOCK: old, **written_files(relevant)}
        with overlay(team.project, files) as root:
            try:
                why = self.lock(root)
            except TidemillError as error:
                why = str(error)
            if why is not None:
                return [], why
            new = ProjectFile((root / _LOCK).read_bytes(), old.executable)
        return ([] if new == old else [Change(_LOCK, "updated", file=new)]), None


def _members(wheel: bytes) -> object:
    """Return names and checksums of the files in `wheel`; the bytes of the wheel itself change with each build."""
    try:
        with zipfile.ZipFile(BytesIO(wheel)) as archive:
            return sorted((one.filename, one.CRC) for one in archive.infolist())
    except zipfile.BadZipFile:
        return wheel
