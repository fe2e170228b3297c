"""Merges a project three ways: as the template wrote it, as the template would write it now, as it is here.

Everything is computed, nothing is written: what comes out is a list of changes.

| the template | the team | what becomes of it |
|---|---|---|
| changed a file | did not | it is updated |
| changed a file | changed it | the lines are merged, with markers where both changed the same ones |
| changed a file | removed it | it stays away, and is told |
| changed a file | moved it | the change is merged where the team moved it |
| added a file | has none there | it is added |
| added a file | has another there | both, with markers |
| removed a file | did not change it | it is removed |
| removed a file | changed it | it stays, and is told |
| moved a file | changed it or not | the team's is moved, and merged |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, Protocol

from .renames import find_renames
from .text_merge import Labels, is_binary, merge_lines
from .tree import Rendered

__all__ = ["Change", "Kind", "TeamTree", "merge_trees"]

Kind = Literal["added", "updated", "merged", "moved", "removed", "conflict", "kept"]
"""What becomes of a file. `conflict`: a human has to decide; `kept`: the template's change was not taken."""


class TeamTree(Protocol):
    """The project as the team has it."""

    def file(self, path: PurePosixPath) -> Rendered | None:
        """Return the file at `path`, or None where nothing is."""
        ...

    def obstacle(self, path: PurePosixPath, removed: frozenset[PurePosixPath]) -> str | None:
        """Return why no file can be read or written at `path` once `removed` are away, or None."""
        ...

    def others(self, known: frozenset[PurePosixPath], names: frozenset[str]) -> dict[PurePosixPath, bytes]:
        """Return the team's files which are not `known` and whose suffix is one of those of `names`."""
        ...


@dataclass(frozen=True)
class Change:
    """What becomes of one file.

    Attributes:
        path: the file.
        kind: what becomes of it.
        note: what a reader should know besides, one sentence without a full stop.
        file: what is to be written at `path`; None where nothing is.
        removes: the file which goes away: `path` itself, or where it was moved from.
    """

    path: PurePosixPath
    kind: Kind
    note: str = ""
    file: Rendered | None = None
    removes: PurePosixPath | None = None

    @property
    def touched(self) -> tuple[PurePosixPath, ...]:
        """The paths which are written or removed."""
        written = (self.path,) if self.file is not None else ()
        return (*written, *((self.removes,) if self.removes is not None else ()))


_Tree = Mapping[PurePosixPath, Rendered]


def merge_trees(base: _Tree, theirs: _Tree, ours: TeamTree, labels: Labels, pristine: str) -> list[Change]:
    """Return what taking the step from `base` to `theirs` does to `ours`, sorted by path.

    Args:
        base: what the template wrote, or would have written with the answers of then.
        theirs: what the template writes now.
        ours: the project.
        labels: what the markers of conflicts say.
        pristine: where the template's own files will be found, for the notes.

    Raises:
        ToolError: Git is missing, or fails.
    """
    return _Merge(base, theirs, ours, labels, pristine).changes()


class _Merge:
    def __init__(self, base: _Tree, theirs: _Tree, ours: TeamTree, labels: Labels, pristine: str) -> None:
        self.base, self.theirs, self.ours = base, theirs, ours
        self.labels, self.pristine = labels, pristine
        self.gone = frozenset(path for path in base if path not in theirs)
        self.come = frozenset(path for path in theirs if path not in base)

    def changes(self) -> list[Change]:
        found: dict[PurePosixPath, Change | None] = {}
        moves = self._template_moves()
        for old, new in moves.items():
            found[old] = None
            found[new] = self._moved(old, new)
        removed = {path: self._removed(path) for path in self.gone if path not in found}
        found |= removed
        free = frozenset(path for path, change in removed.items() if change and change.removes) | frozenset(moves)
        changed = [path for path in self.theirs if path not in found and self.base.get(path) != self.theirs[path]]
        team_moves = self._team_moves([path for path in changed if path in self.base])
        for path in changed:
            found[path] = self._changed(path, free, team_moves.get(path))
        return sorted((change for change in found.values() if change), key=lambda change: change.path)

    def _template_moves(self) -> dict[PurePosixPath, PurePosixPath]:
        """Return the template's moves which can be followed: old path -> new path."""
        # What the team removed is paired too: else its new place would bring it back.
        gone = {path: self.base[path].content for path in self.gone if self.ours.obstacle(path, frozenset()) is None}
        removed = frozenset(path for path in self.gone if self._unchanged(path))
        come = {path: self.theirs[path].content for path in self.come if self._open(path, removed)}
        return find_renames(gone, come)

    def _team_moves(self, changed: Iterable[PurePosixPath]) -> dict[PurePosixPath, PurePosixPath]:
        """Return where the team moved those of `changed` which are not at their place."""
        away = [path for path in changed if self._open(path, frozenset())]
        if not away:
            return {}
        known = frozenset(self.base) | frozenset(self.theirs)
        others = self.ours.others(known, frozenset(path.name for path in away))
        return find_renames({path: self.base[path].content for path in away}, others)

    def _open(self, path: PurePosixPath, removed: frozenset[PurePosixPath]) -> bool:
        """Return whether nothing is at `path`, nor in the way of a file there."""
        return self.ours.obstacle(path, removed) is None and self.ours.file(path) is None

    def _unchanged(self, path: PurePosixPath) -> bool:
        here = None if self.ours.obstacle(path, frozenset()) else self.ours.file(path)
        return here is not None and here.content == self.base[path].content

    def _moved(self, old: PurePosixPath, new: PurePosixPath) -> Change:
        here = self.ours.file(old)
        if here is None:
            return Change(old, "kept", f"the template has moved it to {new}; it was removed here and stays away")
        merged = self._merged(new, here, self.base[old], self.theirs[new])
        kind = "conflict" if merged.kind == "conflict" else "moved"
        # What has no lines to merge goes to the new place as the team has it.
        file = merged.file or Rendered(here.content, self._mode(here, self.base[old], self.theirs[new]))
        return Change(new, kind, f"was {old}; {merged.note}" if merged.note else f"was {old}", file, old)

    def _removed(self, path: PurePosixPath) -> Change | None:
        if self._unchanged(path):
            return Change(path, "removed", removes=path)
        if self.ours.obstacle(path, frozenset()) or self.ours.file(path) is None:
            return None
        return Change(path, "kept", "the template has removed it; it was changed here and stays")

    def _changed(
        self, path: PurePosixPath, free: frozenset[PurePosixPath], moved: PurePosixPath | None
    ) -> Change | None:
        base, theirs = self.base.get(path), self.theirs[path]
        why = self.ours.obstacle(path, free)
        if why:
            return Change(path, "conflict", f"{why}; the template's is {self.pristine}/{path}")
        here = self.ours.file(path)
        if here is None and base is None:
            return Change(path, "added", file=Rendered(theirs.content, theirs.executable))
        if here is None:
            away = self.ours.file(moved) if moved is not None else None
            if moved is None or away is None or base is None:
                return Change(path, "kept", "the template has changed it; it was removed here and stays away")
            change = self._merged(moved, away, base, theirs)
            if change.file == away and change.kind != "conflict":
                return None
            note = f"was moved here from {path}"
            return Change(moved, change.kind, f"{note}; {change.note}" if change.note else note, change.file)
        change = self._merged(path, here, base, theirs)
        if change.kind != "conflict" and change.file == here:
            return None
        return change

    def _merged(self, path: PurePosixPath, here: Rendered, base: Rendered | None, theirs: Rendered) -> Change:
        """Return what becomes of `here`, which both sides have, when it is written at `path`."""
        executable = self._mode(here, base, theirs)
        if here.content == theirs.content or (base is not None and here.content == base.content):
            return Change(path, "updated", file=Rendered(theirs.content, executable))
        if base is not None and base.content == theirs.content:
            return Change(path, "updated", file=Rendered(here.content, executable))
        contents = (here.content, theirs.content, b"" if base is None else base.content)
        if any(is_binary(content) for content in contents):
            note = f"it has no lines to merge and stays as it was here; the template's is {self.pristine}/{path}"
            return Change(path, "conflict", note)
        merged = merge_lines(here.content, None if base is None else base.content, theirs.content, self.labels)
        file = Rendered(merged.content, executable)
        if merged.conflicts:
            places = "one place" if merged.conflicts == 1 else f"{merged.conflicts} places"
            return Change(path, "conflict", f"{places} to decide, between markers", file)
        return Change(path, "merged", file=file)

    def _mode(self, here: Rendered, base: Rendered | None, theirs: Rendered) -> bool:
        """Return whether the file is executable: where the template changed that, as it says, else as it is here."""
        before = base.executable if base is not None else False
        return theirs.executable if theirs.executable != before else here.executable
