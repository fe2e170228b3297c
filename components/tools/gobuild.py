"""Builds of pinned Go modules, in the cache.

`builds/<package>/` has go.mod and go.sum, with every module pinned and hashed. The build uses `-mod=readonly`, so a
module that go.sum lacks, or that differs from it, fails the build with any Go settings of the user.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .base import Machine, Package, Progress, WayError, parse_version

_BUILDS = Path(__file__).parent / "builds"
_NEEDED = (1, 26, 4)
# From 1.21 on, Go downloads the version it needs, verified by Go's checksum database.
_FETCHES = (1, 21, 0)
_LINE_EVERY = 5.0


@dataclass(frozen=True)
class GoBuild:
    """Programs built from a pinned Go module.

    Attributes:
        programs: executable -> the import path of its package.
        version_variable: the linker variable of its version.
        version_prefix: prefix of the version in that variable.
        tried: whether this way has been tested.
    """

    programs: Mapping[str, str]
    version_variable: str
    version_prefix: str = ""
    tried: bool = True
    name: str = "go"

    def obstacle(self, machine: Machine) -> str | None:
        """Return why Go is missing or too old."""
        needed = ".".join(map(str, _NEEDED))
        version = _go_version()
        if version is None:
            return f"Go is not installed; the build needs Go {needed} or newer"
        if version < _FETCHES or (version < _NEEDED and os.environ.get("GOTOOLCHAIN") == "local"):
            return f"Go {'.'.join(map(str, version))} is too old; the build needs Go {needed} or newer"
        return None

    def fill(self, package: Package, folder: Path, machine: Machine, progress: Progress) -> Mapping[str, Path]:
        """Build the package, and report progress."""
        source = folder / "source"
        shutil.copytree(_BUILDS / package.name, source)
        targets = folder / "bin"
        targets.mkdir(exist_ok=True)
        packages = [*self.programs.values()]
        environment = {**os.environ, "GOWORK": "off"}
        if (_go_version() or _NEEDED) < _NEEDED:
            environment["GOTOOLCHAIN"] = f"go{'.'.join(map(str, _NEEDED))}"
        title = f"{package.name} {package.version}"
        progress(f"{title}: building from its pinned Go module; this takes minutes, only once")
        report = _Report(title, progress)
        listed = _run_go(["go", "list", "-mod=readonly", "-deps", *packages], source, environment, report.fetching)
        report.total = len(listed)
        flags = f"-s -w -X {self.version_variable}={self.version_prefix}{package.version}"
        _run_go(
            [
                "go",
                "build",
                "-mod=readonly",
                "-trimpath",
                "-v",
                "-ldflags",
                flags,
                "-o",
                f"{targets}{os.sep}",
                *packages,
            ],
            source,
            environment,
            report.compiling,
        )
        shutil.rmtree(source)
        return {program: targets / program for program in self.programs}


class _Report:
    """Turns the output of the go command into occasional lines of progress."""

    def __init__(self, title: str, progress: Progress) -> None:
        self.total = 0
        self._title = title
        self._progress = progress
        self._fetched = 0
        self._compiled = 0
        self._started = self._reported = time.monotonic()

    def fetching(self, line: str) -> None:
        if line.startswith("go: downloading"):
            self._fetched += 1
            self._report(f"fetched {self._fetched} modules")

    def compiling(self, line: str) -> None:
        if line.startswith("go: "):
            self.fetching(line)
        else:
            self._compiled += 1
            # Go does not compile again what is in its build cache.
            self._report(f"compiled {self._compiled:,} of at most {self.total:,} packages")

    def _report(self, text: str) -> None:
        now = time.monotonic()
        if now - self._reported >= _LINE_EVERY:
            self._reported = now
            self._progress(f"{self._title}: {text} in {now - self._started:.0f} s")


def _go_version() -> tuple[int, int, int] | None:
    go = shutil.which("go")
    if go is None:
        return None
    try:
        done = subprocess.run(
            [go, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd="/",  # a go.mod in the working folder must not matter
            env={**os.environ, "GOTOOLCHAIN": "local", "GOWORK": "off"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_version(done.stdout)


def _run_go(argv: list[str], folder: Path, environment: dict[str, str], on_line: Callable[[str], None]) -> list[str]:
    """Run the go command, pass the lines of its stderr to `on_line`, and return those of its stdout."""
    tail: deque[str] = deque(maxlen=5)
    output = folder.parent / "stdout"
    with (
        output.open("w+", encoding="utf-8") as stdout,
        subprocess.Popen(
            argv,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process,
    ):
        try:
            assert process.stderr is not None  # noqa: S101 - requested above
            for line in process.stderr:
                tail.append(line.rstrip())
                on_line(tail[-1])
            code = process.wait()
        except BaseException:
            process.terminate()
            raise
        stdout.seek(0)
        lines = stdout.read().splitlines()
    output.unlink()
    if code != 0:
        raise WayError(f"`{' '.join(argv[:2])}` failed: {' | '.join(tail) or f'exit code {code}'}")
    return lines
