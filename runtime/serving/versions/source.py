"""The sources of versions: a registry or a folder, with a cache that is used while the registry is unreachable.

    <cache>/<model>/state-<alias>.json    the last versions that served under that alias, newest first
    <cache>/<model>/<version>/            one version:
        version.json                      its identity, with the metrics of its run
        model/                            its artifacts
        reference_sample.parquet          training rows with predictions, if its run logged them

MLflow downloads the artifacts, in a child process, because it supports all kinds of stores.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock

from ...common.errors import NotFoundError, UnreachableError
from ...common.files import write_private
from ..engines.errors import UnfitError
from ..settings import ServingSettings
from .child_process import run_child
from .model import VersionInfo
from .registry_client import LibraryClient, RegistryClient, RestClient, first_line

_log = logging.getLogger(__name__)
_FETCH_SECONDS = 3600.0
_KEPT_VERSIONS = 4


class VersionSource(Protocol):
    """Resolves and fetches the version that should serve."""

    def resolve(self) -> VersionInfo | None:
        """Return the version that should serve, or None; raise UnreachableError if the registry does not answer."""

    def cached(self, info: VersionInfo) -> Path | None:
        """Return the cache folder of the version, or None if it is not in the cache."""
        ...

    def fetch(self, info: VersionInfo) -> Path:
        """Return the cache folder of the version; download it if needed."""
        ...

    def evict(self, info: VersionInfo) -> None:
        """Delete the version from the cache: it may be damaged."""

    def record_served(self, info: VersionInfo) -> None:
        """Record that the version serves."""

    def last_served(self) -> VersionInfo | None:
        """Return the version that served last, or None."""

    def had_version(self) -> bool:
        """Return whether a version ever served or passed the promotion gate; may raise UnreachableError."""
        ...

    def deleted(self, info: VersionInfo) -> bool:
        """Return whether the registry no longer has the version; may raise UnreachableError."""
        ...

    def close(self) -> None:
        """Close the connections to the registry; the next call opens new ones."""


def source_of(settings: ServingSettings, alias: str) -> VersionSource:
    """Return the source in `settings`; `alias` selects the version in a registry."""
    return FolderSource(settings) if settings.path is not None else RegistrySource(settings, alias)


class _CachedSource:
    """The cache of a source."""

    def __init__(self, settings: ServingSettings, alias: str) -> None:
        self._folder = settings.cache.absolute() / settings.model
        self._state = self._folder / f"state-{hashlib.sha256(alias.encode()).hexdigest()[:12]}.json"

    def cached(self, info: VersionInfo) -> Path | None:
        """Return the cache folder of `info`, or None if it is not in the cache."""
        folder = self._folder / info.version
        stored = read_version_info(folder)
        return folder if stored is not None and stored.identity == info.identity else None

    def fetch(self, info: VersionInfo) -> Path:
        """Return the cache folder of `info`; fill it if needed.

        Raises:
            UnfitError: the download failed; the message says why.
        """
        with self.lock(info):
            folder = self.cached(info)
            return folder if folder is not None else self._add(info)

    def _add(self, info: VersionInfo) -> Path:
        work = Path(tempfile.mkdtemp(prefix=".download-", dir=self._folder))
        folder = self._folder / info.version
        try:
            self._download(info, work)
            if not (work / "model" / "MLmodel").is_file():
                raise UnfitError("its artifacts have no MLmodel file")
            run = _read_json(work / "run.json") or {}
            _write_json(work / "version.json", replace(info, metrics=run.get("metrics", {})).as_dict())
            shutil.rmtree(folder, ignore_errors=True)
            # The rename completes the version: a partial download is never served.
            work.rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return folder

    def _download(self, info: VersionInfo, work: Path) -> None:
        """Write `model/` to the folder `work`."""
        raise NotImplementedError

    def lock(self, info: VersionInfo) -> FileLock:
        """Return the lock that lets one of several workers download a version for all."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return FileLock(self._folder / f".{info.version}.fetch.lock")

    def evict(self, info: VersionInfo) -> None:
        shutil.rmtree(self._folder / info.version, ignore_errors=True)

    def record_served(self, info: VersionInfo) -> None:
        """Record that `info` serves; delete cached versions that are no longer among the last ones of any alias."""
        before = self._recent(self._state)
        if before and before[0].identity == info.identity:
            return
        kept = [info, *(other for other in before if other.identity != info.identity)][:_KEPT_VERSIONS]
        _write_json(self._state, {"recent": [each.as_dict() for each in kept]})
        in_use = {each.version for path in self._folder.glob("state-*.json") for each in self._recent(path)}
        for folder in self._folder.iterdir():
            if folder.is_dir() and folder.name not in in_use and not folder.name.startswith("."):
                shutil.rmtree(folder, ignore_errors=True)

    def last_served(self) -> VersionInfo | None:
        recent = self._recent(self._state)
        return recent[0] if recent else None

    def had_version(self) -> bool:
        return self.last_served() is not None

    def deleted(self, info: VersionInfo) -> bool:  # noqa: ARG002 - a folder has no registry
        return False

    def close(self) -> None:
        """Do nothing: a folder has no connections."""

    @staticmethod
    def _recent(path: Path) -> list[VersionInfo]:
        """Return the last serving versions in the state file `path`, newest first."""
        found = (_version_info(raw) for raw in (_read_json(path) or {}).get("recent", []))
        return [info for info in found if info is not None]


class FolderSource(_CachedSource):
    """One model in a folder, as it is when the server starts; never what the folder held before."""

    def __init__(self, settings: ServingSettings) -> None:
        assert settings.path is not None  # noqa: S101 - validated in the settings
        self._path = settings.path.absolute()
        digest = _digest(self._path)[:12]
        self._info = VersionInfo(
            model=settings.model,
            version=f"folder-{digest}",
            alias="",
            source=f"{self._path}#{digest}",
            run_id="",
            tags={},
        )
        # An image has a version.json from the registry next to the model folder.
        stored = read_version_info(self._path.parent) if self._path.name == "model" else None
        if stored is not None and stored.model == settings.model and stored.version.isdecimal():
            self._info = replace(stored, source=self._info.source)
        super().__init__(settings, "folder")

    def resolve(self) -> VersionInfo | None:
        """Return the version of the folder, or None if it contains no model."""
        return self._info if (self._path / "MLmodel").is_file() else None

    def last_served(self) -> VersionInfo | None:
        """Return None: the folder may have held another model when the server ran before."""
        return None

    def _download(self, info: VersionInfo, work: Path) -> None:
        try:
            shutil.copytree(self._path, work / "model")
            copied = _digest(work / "model")
        except (OSError, shutil.Error) as error:
            raise UnfitError(f"the folder cannot be read ({first_line(error)})") from None
        if not info.source.endswith(f"#{copied[:12]}"):
            raise UnfitError("the folder changed after the start", hint="start again when it is complete")


def _digest(folder: Path) -> str:
    """Return a hash of the names and contents of all files: a copy can keep sizes and times of other contents."""
    whole = hashlib.sha256()
    for root, _, names in sorted(os.walk(folder, followlinks=True)):
        for name in sorted(names):
            path = Path(root, name)
            if not path.is_file():
                continue
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            whole.update(json.dumps([path.relative_to(folder).as_posix(), content]).encode())
    return whole.hexdigest()


class RegistrySource(_CachedSource):
    """A registry version, selected by alias or by a fixed number."""

    def __init__(self, settings: ServingSettings, alias: str) -> None:
        assert settings.registry is not None  # noqa: S101 - validated in the settings
        super().__init__(settings, alias)
        self._name = settings.model
        self._alias = alias
        self._version = settings.version
        self._registry = settings.registry
        is_http = settings.registry.tracking_uri.startswith(("http://", "https://"))
        self._client: RegistryClient = (RestClient if is_http else LibraryClient)(settings.registry)

    def resolve(self) -> VersionInfo | None:
        """Return the version that the alias names now, or None if the registry has no such alias.

        Raises:
            UnreachableError: the registry does not answer, or answers with an error.
        """
        with _unreachable():
            found = (
                self._client.version(self._name, self._version)
                if self._version is not None
                else self._client.version_of_alias(self._name, self._alias)
            )
        if found is None:
            return None
        return VersionInfo(
            model=self._name,
            version=str(found["version"]),
            alias="" if self._version is not None else self._alias,
            source=str(found.get("source") or ""),
            run_id=str(found.get("run_id") or ""),
            tags={str(tag["key"]): str(tag["value"]) for tag in found.get("tags") or []},
        )

    def last_served(self) -> VersionInfo | None:
        """Return the version that served last, or None; a fixed version is never replaced by another."""
        last = super().last_served()
        return None if last is not None and self._version not in (None, last.version) else last

    def had_version(self) -> bool:
        """Return whether a version ever served here, or passed the promotion gate.

        Raises:
            UnreachableError: the registry does not answer, or answers with an error.
        """
        if super().had_version():
            return True
        with _unreachable():
            return self._client.has_promoted_version(self._name)

    def deleted(self, info: VersionInfo) -> bool:
        """Return whether the registry no longer has the version.

        Raises:
            UnreachableError: the registry does not answer, or answers with an error.
        """
        with _unreachable():
            return self._client.version(self._name, info.version) is None

    def close(self) -> None:
        """Close the connections to the registry; the next call opens new ones."""
        self._client.close()

    def _download(self, info: VersionInfo, work: Path) -> None:
        request = {
            "registry": self._registry.model_dump(mode="json"),
            "model": info.model,
            "version": info.version,
            "run_id": info.run_id,
            "destination": str(work),
        }
        run_child("tidemill.runtime.serving.versions.fetch", [], request, seconds=_FETCH_SECONDS, what="the artifacts")


@contextmanager
def _unreachable() -> Generator[None]:
    try:
        yield
    except (OSError, NotFoundError) as error:
        raise UnreachableError(f"the registry does not answer ({first_line(error)})", field="registry") from None


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.warning("unreadable file ignored", extra={"file": str(path), "error": str(error)})
        return None


def _version_info(raw: dict[str, Any] | None) -> VersionInfo | None:
    try:
        return None if raw is None else VersionInfo(**{field.name: raw[field.name] for field in fields(VersionInfo)})
    except KeyError:
        return None


def read_version_info(folder: Path) -> VersionInfo | None:
    """Return the version that is cached in `folder`, with the metrics of its run, or None."""
    return _version_info(_read_json(folder / "version.json"))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_private(path, json.dumps(content), durable=True)
