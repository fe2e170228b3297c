"""Where versions come from: the registry, and the cache which stands in for it when it does not answer.

<cache>/<model>/state.json        the version which served last
<cache>/<model>/<version>/        `model/`: its artifacts; `version.json`: which version they are of
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.runtime.errors import NotFoundError, UnreachableError
from tidemill.runtime.reaching import read_secret
from tidemill.runtime.serving.model import VersionInfo
from tidemill.runtime.serving.settings import ServingSettings

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["Source"]

_log = logging.getLogger(__name__)


class Source:
    """The versions of one model, as one alias names them.

    The credentials go into this process's own environment, which is where MLflow's client looks for them.
    """

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self._folder = settings.cache.absolute() / settings.model
        self._client: MlflowClient | None = None

    @property
    def folder(self) -> Path:
        """Where everything cached of this model is."""
        return self._folder

    def _connected(self) -> MlflowClient:
        # Read anew, so that a changed password needs no restart.
        os.environ["MLFLOW_TRACKING_USERNAME"] = self._settings.registry.username
        os.environ["MLFLOW_TRACKING_PASSWORD"] = read_secret(self._settings.registry.password_file)
        if self._client is None:
            import mlflow

            mlflow.set_tracking_uri(self._settings.registry.tracking_uri)
            mlflow.set_registry_uri(self._settings.registry.tracking_uri)
            self._client = mlflow.MlflowClient(self._settings.registry.tracking_uri)
        return self._client

    def resolve(self) -> VersionInfo | None:
        """Return the version which the alias names now, or None where the registry knows no such alias.

        Raises:
            UnreachableError: the registry does not answer, or not with an answer.
        """
        from mlflow.exceptions import MlflowException

        name, alias = self._settings.model, self._settings.alias
        try:
            found = self._connected().get_model_version_by_alias(name, alias)
        except MlflowException as error:
            # An alias which is not there is an invalid parameter to MLflow.
            missing = error.error_code == "INVALID_PARAMETER_VALUE" and f"alias {alias} not found" in error.message
            if missing or error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise UnreachableError(f"the registry gives no answer ({_first_line(error)})", field="registry") from None
        except (OSError, NotFoundError) as error:
            raise UnreachableError(f"the registry gives no answer ({_first_line(error)})", field="registry") from None
        return VersionInfo(
            model=name,
            version=str(found.version),
            alias=alias,
            source=str(found.source),
            run_id=found.run_id or "",
            tags={str(key): str(value) for key, value in found.tags.items()},
        )

    def fetch(self, info: VersionInfo) -> Path:
        """Return the folder with the artifacts of `info`, downloaded unless they are cached."""
        kept = self._folder / info.version
        if (cached := _read(kept / "version.json")) is not None and cached.identity == info.identity:
            return kept / "model"
        import mlflow.artifacts

        self._connected()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        work = Path(tempfile.mkdtemp(prefix=".download-", dir=self._folder))
        try:
            # To the same file system, so that a half-finished download is never taken for a version.
            mlflow.artifacts.download_artifacts(
                artifact_uri=f"models:/{info.model}/{info.version}", dst_path=str(work / "model")
            )
            _write(work / "version.json", info)
            shutil.rmtree(kept, ignore_errors=True)
            work.rename(kept)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return kept / "model"

    def forget(self, info: VersionInfo) -> None:
        """Drop the cached artifacts of `info`: perhaps they are damaged."""
        shutil.rmtree(self._folder / info.version, ignore_errors=True)

    def remember(self, info: VersionInfo) -> None:
        """Note that `info` serves, and drop from the cache what neither serves nor served before it."""
        before = self.remembered()
        _write(self._folder / "state.json", info)
        kept = {info.version, before.version if before else ""}
        for folder in self._folder.iterdir():
            if folder.is_dir() and folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def remembered(self) -> VersionInfo | None:
        """Return the version which served last."""
        return _read(self._folder / "state.json")


def _read(path: Path) -> VersionInfo | None:
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return VersionInfo(**raw)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        _log.warning("unreadable, taken as absent", extra={"file": str(path), "error": str(error)})
        return None


def _write(path: Path, info: VersionInfo) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    work = path.with_suffix(".partial")
    with work.open("w", encoding="utf-8") as file:
        json.dump(info.as_dict(), file)
        file.flush()
        os.fsync(file.fileno())
    work.replace(path)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
