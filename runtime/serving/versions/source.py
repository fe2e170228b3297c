"""Where versions come from: the registry, and the cache which stands in for it when it does not answer.

    <cache>/<model>/state-<alias>.json    the versions which served lately under that alias, the newest first
    <cache>/<model>/<version>/            one version:
        version.json                      which it is, with the metrics of its run
        model/                            its artifacts
        reference_sample.parquet          rows it was trained on, with predictions, where its run kept them

An HTTP registry is asked without MLflow's client, which costs seconds and 100 MB in each worker; downloading, which
knows all kinds of stores, is MLflow's, in a process of its own.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from filelock import FileLock

from ...common.errors import NotFoundError, UnreachableError
from ...common.files import write_private
from ...common.secrets import is_loopback, read_secret
from ...common.settings import RegistrySettings
from ..engines.errors import UnfitError
from ..settings import ServingSettings
from .child_process import run_child
from .model import VersionInfo

if TYPE_CHECKING:
    import httpx

__all__ = ["FolderSource", "RegistrySource", "VersionSource", "source_of", "version_in"]

_log = logging.getLogger(__name__)
_ASK_SECONDS = 15.0
_FETCH_SECONDS = 3600.0
_KEPT = 4


class VersionSource(Protocol):
    """What a follower asks."""

    def resolve(self) -> VersionInfo | None:
        """Return the version which should serve, None without one; raise UnreachableError without an answer."""
        ...

    def fetch(self, info: VersionInfo) -> Path:
        """Return the folder of that version in the cache, filled unless it was before."""
        ...

    def forget(self, info: VersionInfo) -> None:
        """Drop what is cached of it: perhaps it is damaged."""
        ...

    def remember(self, info: VersionInfo) -> None:
        """Note that it serves."""
        ...

    def remembered(self) -> VersionInfo | None:
        """Return what served last."""
        ...


def source_of(settings: ServingSettings, alias: str) -> VersionSource:
    """Return the source which `settings` name; `alias` is the one that is followed there."""
    return FolderSource(settings) if settings.path is not None else RegistrySource(settings, alias)


class _Cached:
    """The cache, which every kind of source has."""

    def __init__(self, settings: ServingSettings, alias: str) -> None:
        self._folder = settings.cache.absolute() / settings.model
        self._state = self._folder / f"state-{hashlib.sha256(alias.encode()).hexdigest()[:12]}.json"

    def cached(self, info: VersionInfo) -> Path | None:
        kept = self._folder / info.version
        found = version_in(kept)
        return kept if found is not None and found.identity == info.identity else None

    def lock(self, info: VersionInfo) -> FileLock:
        """Return the lock under which one of several workers fills the cache for all."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return FileLock(self._folder / f".{info.version}.fetch.lock")

    def forget(self, info: VersionInfo) -> None:
        shutil.rmtree(self._folder / info.version, ignore_errors=True)

    def remember(self, info: VersionInfo) -> None:
        """Note that `info` serves, and drop from the cache what served too long ago under every alias."""
        before = self._recent(self._state)
        if before and before[0].identity == info.identity:
            return
        kept = [info, *(other for other in before if other.identity != info.identity)][:_KEPT]
        _write(self._state, {"recent": [each.as_dict() for each in kept]})
        in_use = {each.version for path in self._folder.glob("state-*.json") for each in self._recent(path)}
        for folder in self._folder.iterdir():
            if folder.is_dir() and folder.name not in in_use and not folder.name.startswith("."):
                shutil.rmtree(folder, ignore_errors=True)

    def remembered(self) -> VersionInfo | None:
        recent = self._recent(self._state)
        return recent[0] if recent else None

    @staticmethod
    def _recent(path: Path) -> list[VersionInfo]:
        """Return what served lately by the state file `path`, the newest first."""
        found = (_info(raw) for raw in (_json(path) or {}).get("recent", []))
        return [info for info in found if info is not None]


class FolderSource(_Cached):
    """One model in a folder, as it is when the server starts."""

    def __init__(self, settings: ServingSettings) -> None:
        assert settings.path is not None  # noqa: S101 - the settings' validator saw to it
        self._path = settings.path.absolute()
        # One state of the folder is served, whatever is written into it later.
        files = sorted(path for path in self._path.rglob("*") if path.is_file())
        seen = [(str(path.relative_to(self._path)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        mark = hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:12]
        self._info = VersionInfo(
            model=settings.model,
            version=f"folder-{mark}",
            alias="",
            source=f"{self._path}#{mark}",
            run_id="",
            tags={},
        )
        # A folder which came out of a registry says beside it which version it is, as in an image.
        stored = version_in(self._path.parent) if self._path.name == "model" else None
        if stored is not None and stored.model == settings.model and stored.version.isdecimal():
            self._info = replace(stored, source=self._info.source)
        super().__init__(settings, "folder")

    def resolve(self) -> VersionInfo | None:
        """Return what the folder holds, None where it holds no model."""
        return self._info if (self._path / "MLmodel").is_file() else None

    def fetch(self, info: VersionInfo) -> Path:
        """Return the folder of a copy in the cache."""
        with self.lock(info):
            if (kept := self.cached(info)) is None:
                kept = _filled(self._folder, info, functools.partial(_copy, self._path))
            return kept


class RegistrySource(_Cached):
    """The version of a registry which an alias names, or one for good."""

    def __init__(self, settings: ServingSettings, alias: str) -> None:
        assert settings.registry is not None  # noqa: S101 - the settings' validator saw to it
        super().__init__(settings, alias)
        self._name = settings.model
        self._alias = alias
        self._version = settings.version
        self._registry = settings.registry
        self._asked: _Asked = (
            _OverHttp(settings.registry)
            if settings.registry.tracking_uri.startswith(("http://", "https://"))
            else _ByClient(settings.registry)
        )

    def resolve(self) -> VersionInfo | None:
        """Return the version which the alias names now, or None where the registry knows no such alias.

        Raises:
            UnreachableError: the registry does not answer, or not with an answer.
        """
        try:
            found = (
                self._asked.version(self._name, self._version)
                if self._version is not None
                else self._asked.aliased(self._name, self._alias)
            )
        except (OSError, NotFoundError) as error:
            raise UnreachableError(f"the registry gives no answer ({_first_line(error)})", field="registry") from None
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

    def fetch(self, info: VersionInfo) -> Path:
        """Return the folder of `info` in the cache, downloaded unless it was before.

        Raises:
            UnfitError: it cannot be downloaded; the message says why.
        """
        with self.lock(info):
            kept = self.cached(info)
            return kept if kept is not None else _filled(self._folder, info, functools.partial(self._download, info))

    def _download(self, info: VersionInfo, work: Path) -> None:
        order = {
            "registry": self._registry.model_dump(mode="json"),
            "model": info.model,
            "version": info.version,
            "run_id": info.run_id,
            "destination": str(work),
        }
        run_child("tidemill.runtime.serving.versions.fetch", [], order, seconds=_FETCH_SECONDS, what="the artifacts")


class _Asked(Protocol):
    def aliased(self, name: str, alias: str) -> dict[str, Any] | None: ...

    def version(self, name: str, version: str) -> dict[str, Any] | None: ...


class _OverHttp:
    """MLflow's REST interface (https://mlflow.org/docs/latest/rest-api.html)."""

    def __init__(self, registry: RegistrySettings) -> None:
        self._registry = registry
        self._client: httpx.Client | None = None

    def aliased(self, name: str, alias: str) -> dict[str, Any] | None:
        return self._get("registered-models/alias", {"name": name, "alias": alias}, f"alias {alias} not found")

    def version(self, name: str, version: str) -> dict[str, Any] | None:
        return self._get("model-versions/get", {"name": name, "version": version}, None)

    def _get(self, what: str, query: dict[str, str], missing: str | None) -> dict[str, Any] | None:
        import httpx

        uri = self._registry.tracking_uri
        if self._client is None:
            self._client = httpx.Client(timeout=_ASK_SECONDS, trust_env=not is_loopback(uri), follow_redirects=False)
        # The password is read anew, so that a changed one needs no restart.
        auth = (
            (self._registry.username, read_secret(self._registry.password_file))
            if self._registry.username is not None and self._registry.password_file is not None
            else None
        )
        try:
            answer = self._client.get(f"{uri.rstrip('/')}/api/2.0/mlflow/{what}", params=query, auth=auth)
        except httpx.HTTPError as error:
            raise OSError(_first_line(error)) from None
        try:
            document: dict[str, Any] = answer.json()
        except ValueError:
            document = {}
        if answer.status_code == 200 and "model_version" in document:
            return document["model_version"]
        code, text = str(document.get("error_code", "")), str(document.get("message", ""))
        # An alias which is not there is an invalid parameter to MLflow.
        if code == "RESOURCE_DOES_NOT_EXIST" or (missing and code == "INVALID_PARAMETER_VALUE" and missing in text):
            return None
        raise OSError(f"status {answer.status_code} {code}".strip())


class _ByClient:
    """MLflow's own client, for a database or a folder as the registry."""

    def __init__(self, registry: RegistrySettings) -> None:
        self._registry = registry

    def aliased(self, name: str, alias: str) -> dict[str, Any] | None:
        return self._ask("get_model_version_by_alias", name, alias, missing=f"alias {alias} not found")

    def version(self, name: str, version: str) -> dict[str, Any] | None:
        return self._ask("get_model_version", name, version)

    def _ask(self, method: str, *arguments: str, missing: str | None = None) -> dict[str, Any] | None:
        from mlflow.exceptions import MlflowException

        from ...registry import connect

        try:
            found = getattr(connect(self._registry), method)(*arguments)
        except MlflowException as error:
            text = str(error.message)
            if error.error_code == "RESOURCE_DOES_NOT_EXIST" or (missing is not None and missing in text):
                return None
            raise OSError(_first_line(error)) from None
        return {
            "version": found.version,
            "source": found.source,
            "run_id": found.run_id,
            "tags": [{"key": key, "value": value} for key, value in found.tags.items()],
        }


def _filled(folder: Path, info: VersionInfo, fill: Callable[[Path], None]) -> Path:
    """Fill the cache with `info` by `fill(work)`; a half-filled folder is never taken for a version."""
    work = Path(tempfile.mkdtemp(prefix=".download-", dir=folder))
    kept = folder / info.version
    try:
        fill(work)
        if not (work / "model" / "MLmodel").is_file():
            raise UnfitError("its artifacts hold no MLmodel file")
        run = _json(work / "run.json") or {}
        _write(work / "version.json", replace(info, metrics=run.get("metrics", {})).as_dict())
        shutil.rmtree(kept, ignore_errors=True)
        work.rename(kept)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return kept


def _copy(source: Path, work: Path) -> None:
    try:
        shutil.copytree(source, work / "model")
    except (OSError, shutil.Error) as error:
        raise UnfitError(f"the folder cannot be read ({_first_line(error)})") from None


def _json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.warning("unreadable, taken as absent", extra={"file": str(path), "error": str(error)})
        return None


def _info(raw: dict[str, Any] | None) -> VersionInfo | None:
    try:
        return None if raw is None else VersionInfo(**{field.name: raw[field.name] for field in fields(VersionInfo)})
    except KeyError:
        return None


def version_in(folder: Path) -> VersionInfo | None:
    """Return which version is cached in `folder`, with the metrics of its run, or None."""
    return _info(_json(folder / "version.json"))


def _write(path: Path, content: dict[str, Any]) -> None:
    write_private(path, json.dumps(content), mode=0o644, durable=True)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
