"""The cache of tools: one folder per user, shared by all projects and runs.

    <cache>/tools/<package>/<version>-<way>-<os>-<arch>/    the package, and manifest.json, written last
    <cache>/tools/.staging/<package>-XXXX/                  an unfinished installation
    <cache>/locks/<package>.lock                            held during an installation

One rename creates an entry, so a reader never sees half of it. Later damage, such as a truncated file, shows by size
and time at every use, and by hash if those differ.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.common.files import sync
from .base import Machine, parse_version

_MANIFEST = "manifest.json"
_SCHEMA = 1


@dataclass(frozen=True)
class Entry:
    """An installed package in the cache.

    Attributes:
        folder: its folder.
        version: the version that its programs print.
        way: the way it was installed.
        files: program -> (path in the folder, sha256, bytes, modification time in ns).
    """

    folder: Path
    version: str
    way: str
    files: Mapping[str, tuple[str, str, int, int]]

    def path(self, program: str) -> Path:
        """Return the path of `program`."""
        return self.folder / self.files[program][0]

    def fault(self, *, thorough: bool = False) -> str | None:
        """Return the damage of the entry, or None.

        Args:
            thorough: compare hashes even if size and time are as recorded.
        """
        for name, (relative, digest, size, modified) in self.files.items():
            path = self.folder / relative
            try:
                state = path.stat()
                if state.st_size != size:
                    return f"{name} has {state.st_size:,} bytes instead of {size:,}"
                if not os.access(path, os.X_OK):
                    return f"{name} is not executable"
                # A copied cache has other times: the hash decides.
                if (thorough or state.st_mtime_ns != modified) and sha256(path) != digest:
                    return f"{name} has changed since its installation"
            except OSError as error:
                return f"{name} cannot be read: {error.strerror}"
        return None


class Cache:
    """The entries below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tools = folder / "tools"
        self._staging = self._tools / ".staging"

    def lock_file(self, package: str) -> Path:
        """Return the lock file for installations of `package`, creating its folder."""
        folder = self.folder / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{package}.lock"

    def entries(self, package: str, machine: Machine) -> Iterator[Entry]:
        """Yield the complete entries of `package`, the newest version first."""
        found: list[Entry] = []
        for manifest in (self._tools / package).glob(f"*-{machine}/{_MANIFEST}"):
            try:
                found.append(_parse(manifest))
            except (OSError, ValueError, KeyError, TypeError):
                continue  # the entry without a readable manifest is replaced
        yield from sorted(found, key=lambda entry: parse_version(entry.version) or (0, 0, 0), reverse=True)

    def stage(self, package: str) -> Path:
        """Return an empty folder for an installation, after deleting those of killed runs; requires the lock."""
        self._staging.mkdir(parents=True, exist_ok=True)
        for left in self._staging.glob(f"{package}-*"):
            shutil.rmtree(left, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=f"{package}-", dir=self._staging))

    def publish(
        self, staged: Path, package: str, version: str, way: str, machine: Machine, programs: Mapping[str, Path]
    ) -> Entry:
        """Turn a staged folder into an entry, replacing one of the same name."""
        files = {}
        for name, path in programs.items():
            state = path.stat()
            sync(path)
            files[name] = (path.relative_to(staged).as_posix(), sha256(path), state.st_size, state.st_mtime_ns)
        document = {"schema": _SCHEMA, "package": package, "version": version, "way": way, "files": files}
        (staged / _MANIFEST).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        sync(staged / _MANIFEST)
        staged.chmod(0o755)
        final = self._tools / package / f"{version}-{way}-{machine}"
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():
            # Running programs keep their open files.
            trash = Path(tempfile.mkdtemp(prefix=f"{package}-", dir=self._staging))
            final.rename(trash / "old")
            shutil.rmtree(trash, ignore_errors=True)
        staged.rename(final)
        return Entry(final, version, way, files)


def sha256(path: Path) -> str:
    """Return the hexadecimal hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse(manifest: Path) -> Entry:
    document: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
    if document["schema"] != _SCHEMA:
        raise ValueError(document["schema"])
    files = {
        str(name): (str(path), str(digest), int(size), int(modified))
        for name, (path, digest, size, modified) in document["files"].items()
    }
    return Entry(manifest.parent, str(document["version"]), str(document["way"]), files)
