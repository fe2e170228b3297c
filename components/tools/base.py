"""What the table of tools is made of, and what a way of getting one has to do."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

__all__ = ["ContainerImage", "Machine", "Package", "Program", "Progress", "Way", "WayError", "fits", "parse_version"]

Progress = Callable[[str], None]

Version = tuple[int, int, int]


class WayError(Exception):
    """A way of getting a package did not lead there; the next one is tried."""


@dataclass(frozen=True)
class Machine:
    """The operating system (`linux`, `darwin`) and architecture (`amd64`, `arm64`), in Go's words."""

    os: str
    arch: str

    @classmethod
    def here(cls) -> Machine:
        """Return the machine at hand."""
        arch = platform.machine().lower()
        return cls(platform.system().lower(), {"x86_64": "amd64", "aarch64": "arm64"}.get(arch, arch))

    def __str__(self) -> str:
        return f"{self.os}-{self.arch}"


@dataclass(frozen=True)
class Program:
    """An executable of a package.

    Attributes:
        name: its name in the table.
        version_args: what makes it print its version.
        aliases: other names it has on PATH.
    """

    name: str
    version_args: Sequence[str] = ("--version",)
    aliases: Sequence[str] = ()


@dataclass(frozen=True)
class ContainerImage:
    """The image of a program, for targets which run containers.

    Attributes:
        repository: its name without a tag.
        tag: the tag, which names a version.
        digest: `sha256:...` of what the tag named when it was looked at, or None where nobody has looked: a digest is
            never invented.
        programs: program -> its path within the image.
        homes: program -> the folder within the image with what that program was installed with.
        env: what undoes settings of the image's own environment; placeholders of `components.targets.base` allowed.
    """

    repository: str
    tag: str
    digest: str | None = None
    programs: Mapping[str, str] = field(default_factory=dict[str, str])
    homes: Mapping[str, str] = field(default_factory=dict[str, str])
    env: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def reference(self) -> str:
        """The image as a container names it, by its digest where that is known."""
        return f"{self.repository}:{self.tag}" + (f"@{self.digest}" if self.digest else "")


@dataclass(frozen=True)
class Package:
    """What is got in one piece, at one version.

    Attributes:
        name: its name in the cache.
        version: what the release or the build brings.
        at_least: the lowest version known to work.
        below: the first version not to be used.
        programs: its executables.
        ways: how to get it, the preferred one first.
        by_hand: what a user can do where no way leads there, an imperative sentence without a full stop.
        optional: whether the platform comes up without it.
        image: its image, or None where the platform runs it in none.
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
    """One way of getting a package."""

    @property
    def name(self) -> str:
        """A short name: `release`, `go`, `debian`."""
        ...

    @property
    def tried(self) -> bool:
        """Whether this way was ever seen to work; doctor and the docs mark those which were not."""
        ...

    def obstacle(self, machine: Machine) -> str | None:
        """Say why this way cannot lead there on `machine`, or None; quick, and asks no server."""
        ...

    def fill(self, package: Package, folder: Path, machine: Machine, progress: Progress) -> Mapping[str, Path]:
        """Put the package into `folder`, an empty one.

        Returns:
            Each program's path within `folder`.

        Raises:
            WayError: it did not work; what is in `folder` is thrown away.
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
