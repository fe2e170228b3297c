"""What `tidemill doctor` shows of the tools: what is there, what is not, and which ways lead there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from . import default_toolbox
from .base import Package, Program, fits
from .toolbox import Toolbox

__all__ = ["DoctorRow", "WayRow", "rows"]

State = Literal["ready", "missing", "broken"]


@dataclass(frozen=True)
class WayRow:
    """A way of getting a tool.

    Attributes:
        name: `release`, `go` or `debian`.
        tried: whether it was ever seen to work by those who wrote it.
        obstacle: why it cannot lead there on this machine, or None; servers are not asked.
    """

    name: str
    tried: bool
    obstacle: str | None


@dataclass(frozen=True)
class DoctorRow:
    """A tool of the table.

    Attributes:
        name: the program.
        wanted: the versions which fit, as text.
        pinned: the version which a release or a build brings.
        state: `ready` to be used; `missing`, but got when it is needed; `broken` in the cache, and then got again.
        optional: whether the platform comes up without it.
        way: how it came here: `path`, or the name of a way; None unless ready.
        path: where it is; None unless ready.
        version: the version found, also where it does not fit.
        note: what is wrong, or None.
        hint: what to do where no way leads there, or None.
        ways: the ways of getting it, in order.
    """

    name: str
    wanted: str
    pinned: str
    state: State
    optional: bool
    way: str | None
    path: Path | None
    version: str | None
    note: str | None
    hint: str | None
    ways: tuple[WayRow, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {**asdict(self), "path": str(self.path) if self.path else None}


def rows(toolbox: Toolbox | None = None) -> list[DoctorRow]:
    """Look at every tool, comparing the hashes of the cached ones; gets nothing and asks no server."""
    box = toolbox or default_toolbox()
    return [_row(box, package, program) for package in box.packages for program in package.programs]


def _row(box: Toolbox, package: Package, program: Program) -> DoctorRow:
    ways = tuple(WayRow(way.name, way.tried, way.obstacle(box.machine)) for way in package.ways)
    state: State = "missing"
    way: str | None = None
    path: Path | None = None
    version: str | None = None
    notes: list[str] = []
    if on_path := box.on_path(program):
        version = on_path[1]
        if fits(package, version):
            state, way, path = "ready", "path", on_path[0]
        else:
            notes.append(f"{on_path[0]} is {version or 'of unknown version'}, which does not fit")
    if state != "ready":
        for entry in box.cache.entries(package.name, box.machine):
            if program.name not in entry.files or not fits(package, entry.version):
                continue
            if fault := entry.fault(thorough=True):
                state = "broken"
                notes.append(fault)
                continue
            state, way, path, version = "ready", entry.way, entry.path(program.name), entry.version
            break
    reachable = any(row.obstacle is None for row in ways)
    return DoctorRow(
        name=program.name,
        wanted=f">={package.at_least},<{package.below}",
        pinned=package.version,
        state=state,
        optional=package.optional,
        way=way,
        path=path,
        version=version,
        note="; ".join(notes) or None,
        hint=None if state == "ready" or (reachable and any(row.tried for row in ways)) else package.by_hand,
        ways=ways,
    )
