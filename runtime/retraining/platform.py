"""What the service asks of the lake and of the registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .. import data, registry
from ..common.errors import NotFoundError, UnvalidatedError
from ..common.settings import LakeSettings, PromoteSettings, RegistrySettings
from ..data import Lake
from ..training import GIT_COMMIT, LAKE_COMMIT
from .retrainings import VerdictRecord

__all__ = ["Platform", "RealPlatform", "Version"]


@dataclass(frozen=True)
class Version:
    """A model version and the commits it was made from, where its tags name them."""

    version: str
    data_commit: str | None = None
    git_commit: str | None = None


class Platform(Protocol):
    """The lake and the registry; every method raises UnreachableError when they do not answer."""

    def version_behind(self, model: str, alias: str) -> Version | None:
        """Return the version which bears `alias`."""
        ...

    def version_of_job(self, model: str, job: str) -> Version | None:
        """Return the version which the job registered."""
        ...

    def newest_validated(self, address: str) -> str | None:
        """Return the newest commit of REPOSITORY/BRANCH/PATH which passed the gate, or None."""
        ...

    def newer_data(self, address: str, old: str, new: str) -> bool:
        """Tell whether commit `new` has data below the path which `old` does not have."""
        ...

    def promote(self, model: str, version: str, gate: PromoteSettings) -> VerdictRecord:
        """Judge the version, and make it the champion when the gate accepts it."""
        ...

    def set_alias(self, model: str, alias: str, version: str) -> None:
        """Give `alias` to the version."""
        ...


class RealPlatform:
    """A `Platform` of a lakeFS and an MLflow server."""

    def __init__(self, lake: LakeSettings, registry: RegistrySettings) -> None:
        self._lake = Lake(lake)
        self._registry = registry

    def close(self) -> None:
        """Close the connections."""
        self._lake.close()

    def version_behind(self, model: str, alias: str) -> Version | None:
        """See `Platform`."""
        return _version(registry.serving_version(model, alias, registry=self._registry))

    def version_of_job(self, model: str, job: str) -> Version | None:
        """See `Platform`."""
        return _version(registry.version_of_job(model, job, registry=self._registry))

    def newest_validated(self, address: str) -> str | None:
        """See `Platform`."""
        try:
            return data.newest_validated(address, lake=self._lake)
        except UnvalidatedError:
            return None

    def newer_data(self, address: str, old: str, new: str) -> bool:
        """See `Platform`."""
        if old == new:
            return False
        repository, _, path = address.split("/", 2)
        try:
            return next(self._lake.changed(repository, old, new, f"{path.rstrip('/')}/"), None) is not None
        except NotFoundError:
            return True  # the champion was trained on another repository, or on nothing of the lake

    def promote(self, model: str, version: str, gate: PromoteSettings) -> VerdictRecord:
        """See `Platform`."""
        verdict = registry.promote(model, version, gate, registry=self._registry)
        return VerdictRecord(accepted=verdict.accepted, reasons=list(verdict.reasons))

    def set_alias(self, model: str, alias: str, version: str) -> None:
        """See `Platform`."""
        client = registry.connect(self._registry)
        with registry.translated(f"{model}@{version}"):
            client.set_registered_model_alias(model, alias, version)


def _version(found: registry.ModelVersion | None) -> Version | None:
    return Version(found.version, found.tags.get(LAKE_COMMIT), found.tags.get(GIT_COMMIT)) if found else None
