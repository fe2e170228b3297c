"""A tool which is got in no time, through the same interface as the real ones.

Run as a module (`python -m tests.support.fake_tools CACHE LOG SECONDS`), it asks for the tool and prints its path.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tidemill.components.tools import Package, Program, Progress, Toolbox, WayError
from tidemill.components.tools.base import Machine


def script(version: str) -> str:
    return f"#!/bin/sh\necho fake {version}\n"


@dataclass(frozen=True)
class FakeWay:
    """Writes a script, and a line to `log` for each time it is asked to."""

    log: Path
    version: str = "1.2.3"
    seconds: float = 0.0
    fails: str | None = None
    missing: str | None = None
    tried: bool = True
    name: str = "fake"

    def obstacle(self, machine: Machine) -> str | None:
        return self.missing

    def fill(self, package: Package, folder: Path, machine: Machine, progress: Progress) -> Mapping[str, Path]:
        with self.log.open("a") as log:
            log.write("filled\n")
        path = folder / "bin" / "fake"
        path.parent.mkdir()
        path.write_text(script(self.version))
        time.sleep(self.seconds)
        if self.fails:
            raise WayError(self.fails)
        path.chmod(0o755)
        return {"fake": path}


def package(*ways: FakeWay) -> Package:
    return Package(
        name="fake",
        version="1.2.3",
        at_least="1.2.0",
        below="2.0.0",
        programs=(Program("fake"),),
        ways=ways,
        by_hand="put `fake` on PATH",
    )


def main() -> None:
    cache, log, seconds = sys.argv[1:]
    print(Toolbox([package(FakeWay(Path(log), seconds=float(seconds)))], Path(cache)).ensure("fake"))


if __name__ == "__main__":
    main()
