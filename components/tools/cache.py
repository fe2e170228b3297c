"""The cache of tools: one folder a user, shared by all projects and all runs.

    <cache>/tools/<package>/<version>-<way>-<os>-<arch>/    the package, and manifest.json, written last
    <cache>/tools/.staging/<package>-XXXX/                  one being filled, or what a killed run left
    <cache>/locks/<package>.lock                            held while one is filled

An entry comes into being by one rename, so a reader never sees half of one. What breaks later (a disk which was
full, a file cut short) is told by size and time at every use, and by hash where those leave a doubt.
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

__all__ = ["Cache", "Entry"]

_MANIFEST = "manifest.json"
_SCHEMA = 1


@dataclass(frozen=True)
class Entry:
    """A filled folder of the cache.

    Attributes:
        folder: where it is.
        version: what its programs say of themselves.
        way: how it was got.
        files: program -> (path within the folder, sha256, bytes, modification time in ns).
    """

    folder: Path
    version: str
    way: str
    files: Mapping[str, tuple[str, str, int, int]]

    def path(self, program: str) -> Path:
        """Return the path of `program`."""
        return self.folder / self.files[program][0]

    def fault(self, *, thorough: bool = False) -> str | None:
        """Say what is wrong with the entry, or None.

        Args:
            thorough: compare hashes even where size and time are as recorded.
        """
        for name, (relative, digest, size, modified) in self.files.items():
            path = self.folder / relative
            try:
                state = path.stat()
                if state.st_size != size:
                    return f"{name} has {state.st_size:,} bytes instead of {size:,}"
                if not os.access(path, os.X_OK):
                    return f"{name} is not executable"
                # A cache which was copied has other times: the hash decides.
                if (thorough or state.st_mtime_ns != modified) and sha256(path) != digest:
                    return f"{name} has changed since it was got"
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
        """Return the file which is locked while `package` is filled, its folder made."""
        folder = self.folder / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{package}.lock"

    def entries(self, package: str, machine: Machine) -> Iterator[Entry]:
        """Yield the complete entries of `package`, the newest version first; those without a manifest are none."""
        found: list[Entry] = []
        for manifest in (self._tools / package).glob(f"*-{machine}/{_MANIFEST}"):
            try:
                found.append(_parse(manifest))
            except (OSError, ValueError, KeyError, TypeError):
                continue  # a manifest which cannot be read is as good as none: the entry gets replaced
        yield from sorted(found, key=lambda entry: parse_version(entry.version) or (0, 0, 0), reverse=True)

    def stage(self, package: str) -> Path:
        """Return a new empty folder to fill, after throwing away what killed runs left. Call it under the lock."""
        self._staging.mkdir(parents=True, exist_ok=True)
        for left in self._staging.glob(f"{package}-*"):
            shutil.rmtree(left, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=f"{package}-", dir=self._staging))

    def publish(
        self, staged: Path, package: str, version: str, way: str, machine: Machine, programs: Mapping[str, Path]
    ) -> Entry:
        """Turn a staged folder into an entry, in place of one of the same name."""
        files = {}
        for name, path in programs.items():
            state = path.stat()
            sync(path)
            files[name] = (
                path.relative_to(staged).as_posix(),
                sha256(path),
                state.st_size,
                state.st_mtime_ns,
            )
        document = {"schema": _SCHEMA, "package": package, "version": version, "way": way, "files": files}
        (staged / _MANIFEST).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        sync(staged / _MANIFEST)
        staged.chmod(0o755)
        final = self._tools / package / f"{version}-{way}-{machine}"
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():
            # Programs which still run from it keep their open file.
            trash = Path(tempfile.mkdtemp(prefix=f"{package}-", dir=self._staging))
            final.rename(trash / "old")
            shutil.rmtree(trash, ignore_errors=True)
        staged.rename(final)
        return Entry(final, version, way, files)


def sha256(path: Path) -> str:
    """Return the hash of a file, in hexadecimal."""
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
