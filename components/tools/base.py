"""The entries of the table of tools, and the interface of the ways to install them."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

Progress = Callable[[str], None]

Version = tuple[int, int, int]


class WayError(Exception):
    """A way to install a package failed; the next way is tried."""


@dataclass(frozen=True)
class Machine:
    """Operating system (`linux`, `darwin`) and architecture (`amd64`, `arm64`), by their names in Go."""

    os: str
    arch: str

    @classmethod
    def here(cls) -> Machine:
        """Return this machine."""
        arch = platform.machine().lower()
        return cls(platform.system().lower(), {"x86_64": "amd64", "aarch64": "arm64"}.get(arch, arch))

    def __str__(self) -> str:
        return f"{self.os}-{self.arch}"


@dataclass(frozen=True)
class Program:
    """An executable of a package.

    Attributes:
        name: its name in the table.
        version_args: arguments that print its version.
        aliases: its other names on PATH.
    """

    name: str
    version_args: Sequence[str] = ("--version",)
    aliases: Sequence[str] = ()


@dataclass(frozen=True)
class ContainerImage:
    """The image of a program, for targets that run containers.

    Attributes:
        repository: its name without a tag.
        tag: the tag of a version.
        digest: `sha256:...` of the reviewed image, or None if nobody has reviewed it.
        programs: program -> its path in the image.
        homes: program -> the folder of its other files in the image.
        env: variables that override the image's own; they may contain placeholders of `components.targets.base`.
    """

    repository: str
    tag: str
    digest: str | None = None
    programs: Mapping[str, str] = field(default_factory=dict[str, str])
    homes: Mapping[str, str] = field(default_factory=dict[str, str])
    env: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def reference(self) -> str:
        """The reference of the image, with its digest if known."""
        return f"{self.repository}:{self.tag}" + (f"@{self.digest}" if self.digest else "")


@dataclass(frozen=True)
class Package:
    """Programs that are installed together, at one version.

    Attributes:
        name: its name in the cache.
        version: the version that a release or a build installs.
        at_least: the lowest version known to work.
        below: the first version that must not be used.
        programs: its executables.
        ways: the ways to install it, the preferred one first.
        by_hand: what the user can do if all ways fail, an imperative sentence without a full stop.
        optional: whether the platform works without it.
        image: its image, or None if it never runs in a container.
    """

    name: str
    version: str
    at_least: str
    below: str
    programs: Sequence[Program]
    ways: Sequence[Way]
    by_hand: str
    optional: bool = False
    image: ContainerImage | None = None


class Way(Protocol):
    """One way to install a package."""

    @property
    def name(self) -> str:
        """A short name: `release`, `go`, `debian`."""
        ...

    @property
    def tried(self) -> bool:
        """Whether this way has been tested; doctor and the docs mark those that have not."""
        ...

    def obstacle(self, machine: Machine) -> str | None:
        """Return why this way cannot work on `machine`, or None; quick, without network access."""
        ...

    def fill(self, package: Package, folder: Path, machine: Machine, progress: Progress) -> Mapping[str, Path]:
        """Install the package into `folder`, which is empty.

        Returns:
            Program -> its path in `folder`.

        Raises:
            WayError: the installation failed; the caller deletes `folder`.
        """
        ...


def parse_version(text: str) -> Version | None:
    """Return the first version in `text`, or None.

    >>> parse_version("prometheus, version 2.42.0+ds (branch: debian/sid)")
    (2, 42, 0)
    """
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def fits(package: Package, version: str | None) -> bool:
    """Return whether `version` of `package` may be used."""
    found, low, high = (parse_version(text or "") for text in (version, package.at_least, package.below))
    return found is not None and low is not None and high is not None and low <= found < high
