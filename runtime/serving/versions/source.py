"""The sources of versions: a registry or a folder, with a cache that is used while the registry is unreachable.

    <cache>/<model>/state-<alias>.json    the last versions that served under that alias, newest first
    <cache>/<model>/<version>/            one version:
        version.json                      its identity, with the metrics of its run
        model/                            its artifacts
        reference_sample.parquet          training rows with predictions, if its run logged them

An HTTP registry is queried without MLflow's client, which costs seconds and 100 MB in each worker. MLflow downloads the
artifacts, in a child process, because it supports all kinds of stores.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
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

_log = logging.getLogger(__name__)
_REGISTRY_SECONDS = 15.0
_FETCH_SECONDS = 3600.0
_KEPT_VERSIONS = 4


class VersionSource(Protocol):
    """Resolves and fetches the version that should serve."""

    def resolve(self) -> VersionInfo | None:
        """Return the version that should serve, or None; raise UnreachableError if the registry does not answer."""

    def fetch(self, info: VersionInfo) -> Path:
        """Return the cache folder of the version; download it if needed."""
        ...

    def evict(self, info: VersionInfo) -> None:
        """Delete the version from the cache: it may be damaged."""

    def record_served(self, info: VersionInfo) -> None:
        """Record that the version serves."""

    def last_served(self) -> VersionInfo | None:
        """Return the version that served last, or None."""


def source_of(settings: ServingSettings, alias: str) -> VersionSource:
    """Return the source in `settings`; `alias` selects the version in a registry."""
    return FolderSource(settings) if settings.path is not None else RegistrySource(settings, alias)


class _CachedSource:
    """The cache of a source."""

    def __init__(self, settings: ServingSettings, alias: str) -> None:
        self._folder = settings.cache.absolute() / settings.model
        self._state = self._folder / f"state-{hashlib.sha256(alias.encode()).hexdigest()[:12]}.json"

    def cached(self, info: VersionInfo) -> Path | None:
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

    @staticmethod
    def _recent(path: Path) -> list[VersionInfo]:
        """Return the last serving versions in the state file `path`, newest first."""
        found = (_version_info(raw) for raw in (_read_json(path) or {}).get("recent", []))
        return [info for info in found if info is not None]


class FolderSource(_CachedSource):
    """One model in a folder, as it is when the server starts."""

    def __init__(self, settings: ServingSettings) -> None:
        assert settings.path is not None  # noqa: S101 - validated in the settings
        self._path = settings.path.absolute()
        # The version is a hash of the files: later changes to the folder are not served.
        files = sorted(path for path in self._path.rglob("*") if path.is_file())
        state = [(str(path.relative_to(self._path)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        digest = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:12]
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

    def _download(self, info: VersionInfo, work: Path) -> None:  # noqa: ARG002 - the folder has one version
        try:
            shutil.copytree(self._path, work / "model")
        except (OSError, shutil.Error) as error:
            raise UnfitError(f"the folder cannot be read ({_first_line(error)})") from None


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
        self._client: _RegistryClient = (_RestClient if is_http else _MlflowClient)(settings.registry)

    def resolve(self) -> VersionInfo | None:
        """Return the version that the alias names now, or None if the registry has no such alias.

        Raises:
            UnreachableError: the registry does not answer, or answers with an error.
        """
        try:
            found = (
                self._client.version(self._name, self._version)
                if self._version is not None
                else self._client.version_of_alias(self._name, self._alias)
            )
        except (OSError, NotFoundError) as error:
            raise UnreachableError(f"the registry does not answer ({_first_line(error)})", field="registry") from None
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

    def _download(self, info: VersionInfo, work: Path) -> None:
        request = {
            "registry": self._registry.model_dump(mode="json"),
            "model": info.model,
            "version": info.version,
            "run_id": info.run_id,
            "destination": str(work),
        }
        run_child("tidemill.runtime.serving.versions.fetch", [], request, seconds=_FETCH_SECONDS, what="the artifacts")


class _RegistryClient(Protocol):
    """Queries a registry; returns None for an unknown version, raises OSError if there is no answer."""

    def version_of_alias(self, name: str, alias: str) -> dict[str, Any] | None: ...

    def version(self, name: str, version: str) -> dict[str, Any] | None: ...


class _RestClient:
    """MLflow's REST interface (https://mlflow.org/docs/latest/rest-api.html)."""

    def __init__(self, registry: RegistrySettings) -> None:
        self._registry = registry
        self._client: httpx.Client | None = None

    def version_of_alias(self, name: str, alias: str) -> dict[str, Any] | None:
        return self._get("registered-models/alias", {"name": name, "alias": alias}, f"alias {alias} not found")

    def version(self, name: str, version: str) -> dict[str, Any] | None:
        return self._get("model-versions/get", {"name": name, "version": version}, None)

    def _get(self, what: str, query: dict[str, str], missing: str | None) -> dict[str, Any] | None:
        import httpx

        uri = self._registry.tracking_uri
        if self._client is None:
            self._client = httpx.Client(
                timeout=_REGISTRY_SECONDS, trust_env=not is_loopback(uri), follow_redirects=False
            )
        # Read on each call, so that a changed password needs no restart.
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
        # MLflow reports an unknown alias as an invalid parameter.
        if code == "RESOURCE_DOES_NOT_EXIST" or (missing and code == "INVALID_PARAMETER_VALUE" and missing in text):
            return None
        raise OSError(f"status {answer.status_code} {code}".strip())


class _MlflowClient:
    """MLflow's own client, for a registry in a database or a folder."""

    def __init__(self, registry: RegistrySettings) -> None:
        self._registry = registry

    def version_of_alias(self, name: str, alias: str) -> dict[str, Any] | None:
        return self._call("get_model_version_by_alias", name, alias, missing=f"alias {alias} not found")

    def version(self, name: str, version: str) -> dict[str, Any] | None:
        return self._call("get_model_version", name, version)

    def _call(self, method: str, *arguments: str, missing: str | None = None) -> dict[str, Any] | None:
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


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
