"""References of model versions, downloaded once from the registry."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from .. import registry
from ..common.errors import PlatformError
from ..common.settings import RegistrySettings
from ..common.target import Target
from ..drift import Profile, Relation

_SAMPLE, _PROFILE, _TARGET = "reference_sample.parquet", "reference_profile.json", "reference_target.json"
_TARGET_SCHEMA = 1


@dataclass(frozen=True)
class Reference:
    """The training data of a version, against which drift is measured.

    Attributes:
        version: the version.
        features: names of the features, in training order.
        sample: at most 1,000 rows.
        profile: the profile of all rows.
        target: the contract of the labels; empty for a version that was logged without one.
        relation: the relation between predictions and labels, or None if the version was logged without held-out rows.
    """

    version: str
    features: tuple[str, ...]
    sample: pd.DataFrame
    profile: Profile
    target: Target = field(default_factory=Target)
    relation: Relation | None = None


class References:
    """Downloads references, and keeps those in use in `folder`, so that a restart does not download them again.

    Args:
        settings: the registry.
        folder: the cache; it may be deleted.
    """

    def __init__(self, settings: RegistrySettings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        # No progress bars in the log.
        os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"

    def serving(self, model: str, alias: str) -> registry.ModelVersion | None:
        """Return the version that `alias` points at, or None."""
        return registry.serving_version(model, alias, registry=self._settings)

    def load(self, version: registry.ModelVersion) -> Reference:
        """Return the reference of `version`, and delete those of the model's other versions.

        Raises:
            UnreachableError: the registry does not answer.
            PlatformError: the version's run has no reference, or a damaged one.
        """
        parent = self._folder / version.model
        # The name contains the run's id, because a recreated registry counts its versions from 1 again.
        folder = parent / f"{version.version}-{version.run_id}"
        if not (folder / _SAMPLE).exists() or not (folder / _PROFILE).exists():
            self._download(version, folder)
        try:
            profile = Profile.from_json((folder / _PROFILE).read_text(encoding="utf-8"))
            with pq.ParquetFile(folder / _SAMPLE) as file:
                sample = file.read().to_pandas()
            target, relation = _target_of(folder / _TARGET)
        except (OSError, ValueError, KeyError, TypeError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise PlatformError(
                f"the reference cannot be read ({error})", field="version", value=f"{version.model}@{version.version}"
            ) from None
        for other in parent.iterdir():
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        features = tuple(name for name in profile.columns if name in sample.columns)
        return Reference(version.version, features, sample, profile, target, relation)

    def _download(self, version: registry.ModelVersion, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        client = registry.connect(self._settings)
        with (
            tempfile.TemporaryDirectory(dir=folder.parent, prefix=".download-") as scratch,
            registry.translate_errors(f"{version.model}@{version.version}"),
        ):
            found = Path(client.download_artifacts(version.run_id, "tidemill", scratch))
            shutil.rmtree(folder, ignore_errors=True)
            found.rename(folder)


def _target_of(file: Path) -> tuple[Target, Relation | None]:
    """Return the contract and the relation in `file`, which a version of an earlier release does not have.

    Raises:
        ValueError, KeyError, TypeError: the file is not such a document.
    """
    if not file.exists():
        return Target(), None
    document = json.loads(file.read_text(encoding="utf-8"))
    if document["schema"] != _TARGET_SCHEMA:
        raise ValueError(f"its schema is {document['schema']}, and only {_TARGET_SCHEMA} is supported")
    relation = document.get("relation")
    return Target.from_json(document["target"]), Relation.from_json(relation) if relation is not None else None
