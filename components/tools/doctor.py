"""The tools in `tidemill doctor`: which are installed, and how the others can be installed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from . import default_toolbox
from .base import Package, Program, fits
from .toolbox import Toolbox

State = Literal["ready", "missing", "broken"]


@dataclass(frozen=True)
class WayRow:
    """A way to install a tool.

    Attributes:
        name: `release`, `go` or `debian`.
        tried: whether this way has been tested.
        obstacle: why it cannot work on this machine, or None; checked without network access.
    """

    name: str
    tried: bool
    obstacle: str | None


@dataclass(frozen=True)
class DoctorRow:
    """A tool of the table.

    Attributes:
        name: the program.
        wanted: the accepted versions, as text.
        pinned: the version that a release or a build installs.
        state: `ready`; `missing`, installed on first use; or `broken` in the cache, installed again on next use.
        optional: whether the platform works without it.
        way: `path`, or the way it was installed; None unless ready.
        path: its path; None unless ready.
        version: the found version, even if it is not accepted.
        note: what is wrong, or None.
        hint: what the user can do if it cannot be installed, or None.
        ways: the ways to install it, in order.
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
        """Return the row as JSON."""
        return {**asdict(self), "path": str(self.path) if self.path else None}


def rows(toolbox: Toolbox | None = None) -> list[DoctorRow]:
    """Check every tool, with the hashes of cached ones; installs nothing and needs no network."""
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
