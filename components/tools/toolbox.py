"""Finds tools, and installs missing ones into the cache."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...runtime.common.errors import NotFoundError, ToolError
from .base import Machine, Package, Program, Progress, WayError, fits, parse_version
from .cache import Cache, Entry

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return the user's cache: TIDEMILL_CACHE, else XDG_CACHE_HOME/tidemill, else ~/.cache/tidemill."""
    if own := os.environ.get("TIDEMILL_CACHE"):
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    # The XDG specification says to ignore a relative path.
    base = Path(shared) if shared and Path(shared).is_absolute() else Path.home() / ".cache"
    return base / "tidemill"


def version_of(path: Path, program: Program) -> str | None:
    """Return the version that the program at `path` prints, or None."""
    try:
        done = subprocess.run(
            [path, *program.version_args],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = parse_version(done.stdout or done.stderr) if done.returncode == 0 else None
    return ".".join(map(str, found)) if found else None


class Toolbox:
    """The tools of a table, with one cache.

    Args:
        packages: the table.
        folder: the cache, created on first use.
        machine: the machine that runs the tools.
    """

    def __init__(self, packages: Sequence[Package], folder: Path, machine: Machine | None = None) -> None:
        self.packages = tuple(packages)
        self.machine = machine or Machine.here()
        self.cache = Cache(folder)
        self._versions: dict[tuple[str, int, int], str | None] = {}
        self._verified: set[Path] = set()

    def package_of(self, name: str) -> tuple[Package, Program]:
        """Return the program `name` with its package.

        Raises:
            NotFoundError: the table has no such tool.
        """
        for package in self.packages:
            for program in package.programs:
                if program.name == name:
                    return package, program
        known = ", ".join(program.name for package in self.packages for program in package.programs)
        raise NotFoundError("unknown tool", field="tool", value=name, hint=f"use one of {known}")

    def on_path(self, program: Program) -> tuple[Path, str | None] | None:
        """Return path and version of `program` on PATH, or None."""
        for name in (program.name, *program.aliases):
            if found := shutil.which(name):
                path = Path(found)
                state = path.stat()
                key = (found, state.st_size, state.st_mtime_ns)
                if key not in self._versions:
                    self._versions[key] = version_of(path, program)
                return path, self._versions[key]
        return None

    def cached(self, package: Package, *, thorough: bool = False) -> Entry | None:
        """Return the newest undamaged entry of the cache with an accepted version, or None."""
        names = {program.name for program in package.programs}
        for entry in self.cache.entries(package.name, self.machine):
            if not fits(package, entry.version) or not names <= entry.files.keys():
                continue
            if fault := entry.fault(thorough=thorough and entry.folder not in self._verified):
                _log.warning("the cached %s is damaged: %s", package.name, fault)
                continue
            if thorough:
                self._verified.add(entry.folder)
            return entry
        return None

    def find(self, name: str) -> Path:
        """Return the program `name` from PATH if its version fits, else from the cache.

        Raises:
            NotFoundError: the table has no such tool.
            ToolError: the program is not installed.
        """
        package, program = self.package_of(name)
        if path := self._installed(package, program, thorough=False):
            return path
        raise ToolError(
            f"version {package.version} is neither on PATH nor in the cache {self.cache.folder}",
            field=name,
            hint="run `tidemill up` to install it, or see `tidemill doctor`",
        )

    def ensure(self, name: str, progress: Progress | None = None) -> Path:
        """Return the program `name`, installing it into the cache if necessary.

        Of concurrent threads and processes, one installs the program and the others wait.

        Raises:
            NotFoundError: the table has no such tool.
            ToolError: the program cannot be installed.
        """
        package, program = self.package_of(name)
        if path := self._installed(package, program, thorough=True):
            return path
        report = progress or _log.info
        try:
            with self._locked(package, report):
                entry = self.cached(package, thorough=True) or self._install(package, program, report)
        except OSError as error:
            raise ToolError(
                f"the cache cannot be used: {error.strerror or error}",
                field=name,
                value=str(error.filename or self.cache.folder),
                hint="make it writable, or set TIDEMILL_CACHE to another folder",
            ) from error
        return entry.path(name)

    def _installed(self, package: Package, program: Program, *, thorough: bool) -> Path | None:
        on_path = self.on_path(program)
        if on_path and fits(package, on_path[1]):
            return on_path[0]
        entry = self.cached(package, thorough=thorough)
        return entry.path(program.name) if entry else None

    @contextmanager
    def _locked(self, package: Package, report: Progress) -> Generator[None]:
        from filelock import FileLock, Timeout

        lock = FileLock(self.cache.lock_file(package.name), is_singleton=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            report(f"{package.name}: waiting for another run that is installing it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _install(self, package: Package, program: Program, report: Progress) -> Entry:
        failures: list[str] = []
        if (on_path := self.on_path(program)) is not None:
            failures.append(f"on PATH: version {on_path[1] or 'unknown'} does not fit")
        else:
            failures.append("on PATH: not found")
        for way in package.ways:
            if obstacle := way.obstacle(self.machine):
                failures.append(f"{way.name}: {obstacle}")
                continue
            staged = self.cache.stage(package.name)
            started = time.monotonic()
            try:
                programs = way.fill(package, staged, self.machine, report)
                version = self._checked(package, programs)
                entry = self.cache.publish(staged, package.name, version, way.name, self.machine, programs)
            except WayError as error:
                failures.append(f"{way.name}: {error}")
                report(f"{package.name}: installation by `{way.name}` failed: {error}")
                continue
            finally:
                shutil.rmtree(staged, ignore_errors=True)
            report(f"{package.name}: installed {version} in {time.monotonic() - started:.0f} s")
            self._verified.add(entry.folder)
            return entry
        raise ToolError(
            f"version {package.version} cannot be installed ({'; '.join(failures)})",
            field=program.name,
            hint=package.by_hand,
        )

    def _checked(self, package: Package, programs: Mapping[str, Path]) -> str:
        """Run every program once, so that the cache contains only what works on this machine."""
        versions: set[str] = set()
        for program in package.programs:
            path = programs.get(program.name)
            version = version_of(path, program) if path else None
            if version is None:
                raise WayError(f"the installed {program.name} does not run")
            if not fits(package, version):
                raise WayError(
                    f"it installed {program.name} {version}, "
                    f"but at least {package.at_least} and below {package.below} is required"
                )
            versions.add(version)
        return min(versions)
