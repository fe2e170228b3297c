"""The lake and the registry, as the retraining service uses them."""

from __future__ import annotations

from dataclasses import dataclass

from .. import data, registry
from ..common.errors import NotFoundError, UnvalidatedError
from ..common.settings import LakeSettings, PromoteSettings, RegistrySettings
from ..common.tags import GIT_COMMIT, LAKE_COMMIT, LAKE_REPOSITORY
from .retrainings import VerdictRecord


@dataclass(frozen=True)
class Version:
    """A model version, with the commits of its data and code if its tags have them."""

    version: str
    data_commit: str | None = None
    git_commit: str | None = None
    data_repository: str | None = None


class Platform:
    """A lakeFS and an MLflow server; all methods raise UnreachableError if the server does not answer."""

    def __init__(self, lake: LakeSettings, registry: RegistrySettings) -> None:
        self._lake = data.Lake(lake)
        self._registry = registry

    def close(self) -> None:
        """Close the connections."""
        self._lake.close()

    def version_by_alias(self, model: str, alias: str) -> Version | None:
        """Return the version that `alias` points at, or None."""
        return _version(registry.serving_version(model, alias, registry=self._registry))

    def version_of_job(self, model: str, job: str) -> Version | None:
        """Return the version that the job registered, or None."""
        return _version(registry.version_of_job(model, job, registry=self._registry))

    def newest_validated(self, address: str) -> str | None:
        """Return the newest commit of REPOSITORY/BRANCH/PATH that passed the gate, or None."""
        try:
            return data.newest_validated(address, lake=self._lake)
        except UnvalidatedError:
            return None

    def trained_on_validated_data(self, version: Version) -> bool:
        """Tell whether the commit that the version names as its training data passed the gate."""
        if not (version.data_repository and version.data_commit):
            return False
        return self._lake.accepted(version.data_repository, version.data_commit)

    def newer_data(self, address: str, old: str, new: str) -> bool:
        """Tell whether the data below the path differs between the commits `old` and `new`."""
        if old == new:
            return False
        repository, _, path = address.split("/", 2)
        try:
            return next(self._lake.changed(repository, old, new, f"{path.rstrip('/')}/"), None) is not None
        except NotFoundError:
            return True  # the champion was trained on another repository, or without the lake

    def promote(self, model: str, version: str, gate: PromoteSettings) -> VerdictRecord:
        """Judge the version; make it the champion if the gate accepts it."""
        verdict = registry.promote(model, version, gate, registry=self._registry)
        return VerdictRecord(accepted=verdict.accepted, reasons=list(verdict.reasons))

    def set_alias(self, model: str, alias: str, version: str) -> None:
        """Point `alias` at the version."""
        registry.set_alias(model, alias, version, registry=self._registry)


def _version(found: registry.ModelVersion | None) -> Version | None:
    if found is None:
        return None
    tags = found.tags
    return Version(found.version, tags.get(LAKE_COMMIT), tags.get(GIT_COMMIT), tags.get(LAKE_REPOSITORY))
