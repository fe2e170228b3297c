"""Computes the three-way merge of a project: the old template, the new template and the team's files.

It writes nothing; the result is a list of changes.

| the template | the team | result |
|---|---|---|
| changed a file | did not | updated |
| changed a file | changed it | lines merged, with conflict markers where both changed the same lines |
| changed a file | removed it | stays removed, reported |
| changed a file | moved it | the change is merged into the moved file |
| added a file | has no such file | added |
| added a file | has another file there | both, with conflict markers |
| removed a file | did not change it | removed |
| removed a file | changed it | stays, reported |
| moved a file | changed it or not | the team's file is moved, and merged |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, Protocol

from .renames import find_renames
from .text_merge import ConflictLabels, is_binary, merge_lines
from .tree import ProjectFile

Kind = Literal["added", "updated", "merged", "moved", "removed", "conflict", "kept"]
"""The kind of a change. `conflict`: the team must decide; `kept`: the template's change was not applied."""


class TeamTree(Protocol):
    """The project with the team's changes."""

    def file(self, path: PurePosixPath) -> ProjectFile | None:
        """Return the file at `path`, or None."""
        ...

    def obstacle(self, path: PurePosixPath, removed: frozenset[PurePosixPath]) -> str | None:
        """Return why no file can be read or written at `path` after `removed` are deleted, or None."""
        ...

    def other_files(self, known: frozenset[PurePosixPath], names: frozenset[str]) -> dict[PurePosixPath, bytes]:
        """Return the team's files except `known` whose suffix is the suffix of one of `names`."""
        ...


@dataclass(frozen=True)
class Change:
    """The change of one file.

    Attributes:
        path: the file.
        kind: the kind of the change.
        note: details for the reader, one sentence without a full stop.
        file: the file to write at `path`; None to write nothing.
        removes: the file to remove: `path` itself, or the old place of a moved file.
    """

    path: PurePosixPath
    kind: Kind
    note: str = ""
    file: ProjectFile | None = None
    removes: PurePosixPath | None = None

    @property
    def touched(self) -> tuple[PurePosixPath, ...]:
        """The paths to write or remove."""
        written = (self.path,) if self.file is not None else ()
        return (*written, *((self.removes,) if self.removes is not None else ()))


_Tree = Mapping[PurePosixPath, ProjectFile]


def written_files(changes: Iterable[Change]) -> dict[PurePosixPath, ProjectFile | None]:
    """Return the files that `changes` write; None for a file that they remove."""
    files: dict[PurePosixPath, ProjectFile | None] = {
        change.removes: None for change in changes if change.removes is not None
    }
    return files | {change.path: change.file for change in changes if change.file is not None}


def merge_trees(base: _Tree, theirs: _Tree, ours: TeamTree, labels: ConflictLabels, base_files: str) -> list[Change]:
    """Return the changes that apply the step from `base` to `theirs` to `ours`, sorted by path.

    Args:
        base: the files of the old template.
        theirs: the files of the new template.
        ours: the project.
        labels: the labels of conflict markers.
        base_files: folder of the template's own files, for the notes.

    Raises:
        ToolError: Git is missing, or fails.
    """
    return _Merge(base, theirs, ours, labels, base_files).changes()


class _Merge:
    def __init__(self, base: _Tree, theirs: _Tree, ours: TeamTree, labels: ConflictLabels, base_files: str) -> None:
        self.base, self.theirs, self.ours = base, theirs, ours
        self.labels, self.base_files = labels, base_files
        self.removed = frozenset(path for path in base if path not in theirs)
        self.added = frozenset(path for path in theirs if path not in base)

    def changes(self) -> list[Change]:
        found: dict[PurePosixPath, Change | None] = {}
        moves = self._template_moves()
        for old, new in moves.items():
            found[old] = None
            found[new] = self._moved(old, new)
        removed = {path: self._removed(path) for path in self.removed if path not in found}
        found |= removed
        free = frozenset(path for path, change in removed.items() if change and change.removes) | frozenset(moves)
        changed = [path for path in self.theirs if path not in found and self.base.get(path) != self.theirs[path]]
        team_moves = self._team_moves([path for path in changed if path in self.base])
        for path in changed:
            found[path] = self._changed(path, free, team_moves.get(path))
        return sorted((change for change in found.values() if change), key=lambda change: change.path)

    def _template_moves(self) -> dict[PurePosixPath, PurePosixPath]:
        """Return the template's moves that the project can follow: old path -> new path."""
        # Includes files that the team removed; otherwise they would come back at their new place.
        old = {path: self.base[path].content for path in self.removed if self.ours.obstacle(path, frozenset()) is None}
        removable = frozenset(path for path in self.removed if self._unchanged(path))
        new = {path: self.theirs[path].content for path in self.added if self._free(path, removable)}
        return find_renames(old, new)

    def _team_moves(self, changed: Iterable[PurePosixPath]) -> dict[PurePosixPath, PurePosixPath]:
        """Return the moves of the team among `changed`: old path -> new path."""
        away = [path for path in changed if self._free(path, frozenset())]
        if not away:
            return {}
        known = frozenset(self.base) | frozenset(self.theirs)
        others = self.ours.other_files(known, frozenset(path.name for path in away))
        return find_renames({path: self.base[path].content for path in away}, others)

    def _free(self, path: PurePosixPath, removed: frozenset[PurePosixPath]) -> bool:
        """Return whether a file can be created at `path`."""
        return self.ours.obstacle(path, removed) is None and self.ours.file(path) is None

    def _unchanged(self, path: PurePosixPath) -> bool:
        here = None if self.ours.obstacle(path, frozenset()) else self.ours.file(path)
        return here is not None and here.content == self.base[path].content

    def _moved(self, old: PurePosixPath, new: PurePosixPath) -> Change:
        here = self.ours.file(old)
        if here is None:
            return Change(old, "kept", f"the template moved it to {new}; your project removed it, so it stays removed")
        merged = self._merged(new, here, self.base[old], self.theirs[new])
        kind = "conflict" if merged.kind == "conflict" else "moved"
        # A file without lines to merge is moved with the team's content.
        file = merged.file or ProjectFile(here.content, self._mode(here, self.base[old], self.theirs[new]))
        return Change(new, kind, f"was {old}; {merged.note}" if merged.note else f"was {old}", file, old)

    def _removed(self, path: PurePosixPath) -> Change | None:
        if self._unchanged(path):
            return Change(path, "removed", removes=path)
        if self.ours.obstacle(path, frozenset()) or self.ours.file(path) is None:
            return None
        return Change(path, "kept", "the template removed it; your project changed it, so it stays")

    def _changed(
        self, path: PurePosixPath, free: frozenset[PurePosixPath], moved: PurePosixPath | None
    ) -> Change | None:
        base, theirs = self.base.get(path), self.theirs[path]
        why = self.ours.obstacle(path, free)
        if why:
            return Change(path, "conflict", f"{why}; the template's version: {self.base_files}/{path}")
        here = self.ours.file(path)
        if here is None and base is None:
            return Change(path, "added", file=ProjectFile(theirs.content, theirs.executable))
        if here is None:
            away = self.ours.file(moved) if moved is not None else None
            if moved is None or away is None or base is None:
                return Change(path, "kept", "the template changed it; your project removed it, so it stays removed")
            change = self._merged(moved, away, base, theirs)
            if change.file == away and change.kind != "conflict":
                return None
            note = f"your project moved it from {path}"
            return Change(moved, change.kind, f"{note}; {change.note}" if change.note else note, change.file)
        change = self._merged(path, here, base, theirs)
        if change.kind != "conflict" and change.file == here:
            return None
        return change

    def _merged(self, path: PurePosixPath, here: ProjectFile, base: ProjectFile | None, theirs: ProjectFile) -> Change:
        """Merge `here`, a file of both sides, into a change at `path`."""
        executable = self._mode(here, base, theirs)
        if here.content == theirs.content or (base is not None and here.content == base.content):
            return Change(path, "updated", file=ProjectFile(theirs.content, executable))
        if base is not None and base.content == theirs.content:
            return Change(path, "updated", file=ProjectFile(here.content, executable))
        contents = (here.content, theirs.content, b"" if base is None else base.content)
        if any(is_binary(content) for content in contents):
            note = f"binary, so it stays unchanged; the template's version: {self.base_files}/{path}"
            return Change(path, "conflict", note)
        merged = merge_lines(here.content, None if base is None else base.content, theirs.content, self.labels)
        file = ProjectFile(merged.content, executable)
        if merged.conflicts:
            places = "one conflict" if merged.conflicts == 1 else f"{merged.conflicts} conflicts"
            return Change(path, "conflict", f"{places} between markers", file)
        return Change(path, "merged", file=file)

    def _mode(self, here: ProjectFile, base: ProjectFile | None, theirs: ProjectFile) -> bool:
        """Return whether the merged file is executable: a change of the template wins, else the team's mode stays."""
        before = base.executable if base is not None else False
        return theirs.executable if theirs.executable != before else here.executable
