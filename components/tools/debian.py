"""Debian packages, unpacked into the cache without root; no service is started."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .base import Machine, Package, Progress, WayError


@dataclass(frozen=True)
class DebianPackage:
    """A package of the distribution's archive; apt verifies its signature.

    Attributes:
        package: name of the Debian package.
        programs: program -> its path in the package.
        tried: whether this way has been tested.
    """

    package: str
    programs: Mapping[str, str]
    tried: bool = True
    name: str = "debian"

    def obstacle(self, machine: Machine) -> str | None:
        """Return the missing programs."""
        if machine.os != "linux":
            return f"there are no Debian packages for {machine.os}"
        missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
        return f"{' and '.join(missing)} not found" if missing else None

    def fill(self, package: Package, folder: Path, machine: Machine, progress: Progress) -> Mapping[str, Path]:
        """Download and unpack the package."""
        download = folder / "download"
        download.mkdir()
        progress(f"{package.name}: downloading the Debian package {self.package}")
        # As root, apt would drop to a user who may not write here.
        options = ["-q", "-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else ["-q"]
        try:
            _run(["apt-get", *options, "download", self.package], download)
        except WayError:
            # A fresh machine has no package lists, or old ones: fetch private ones.
            progress(f"{package.name}: fetching the lists of Debian packages")
            options += _private_state(folder / "apt")
            try:
                # An unreachable archive may be another one; the download below decides.
                _run(["apt-get", *options, "update"], download)
            except WayError as error:
                progress(f"{package.name}: {error}")
            _run(["apt-get", *options, "download", self.package], download)
        archives = list(download.glob("*.deb"))
        if len(archives) != 1:
            raise WayError(f"apt-get downloaded {len(archives)} packages")
        _run(["dpkg-deb", "-x", str(archives[0]), str(folder / "root")], download)
        shutil.rmtree(download)
        shutil.rmtree(folder / "apt", ignore_errors=True)
        found = {name: folder / "root" / path for name, path in self.programs.items()}
        for path in found.values():
            if not path.is_file():
                raise WayError(f"{self.package} does not contain {path.relative_to(folder / 'root')}")
        return found


def _private_state(folder: Path) -> list[str]:
    (folder / "state" / "lists" / "partial").mkdir(parents=True)
    (folder / "cache" / "archives" / "partial").mkdir(parents=True)
    settings = {
        "Dir::State": folder / "state",
        "Dir::State::lists": folder / "state" / "lists",
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": folder / "cache",
    }
    return [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]


def _run(argv: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            argv,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=600,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WayError(f"{argv[0]}: {error}") from error
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise WayError(f"{argv[0]} failed: {lines[-1] if lines else f'exit code {done.returncode}'}")
