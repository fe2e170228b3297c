"""Turns a version in the cache into a model that serves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..engines.mlmodel import MLmodel
from ..settings import ServingSettings
from . import preparation
from .model import ServedModel, VersionInfo, load
from .source import read_version_info

_log = logging.getLogger(__name__)


def loader(settings: ServingSettings) -> Callable[[VersionInfo, Path], ServedModel]:
    """Return a function that prepares a version, once for all workers and in a separate process, and loads it."""

    def load_version(info: VersionInfo, folder: Path) -> ServedModel:
        if settings.trust:
            pickled = MLmodel.read(folder / "model").pickle_reason()
            _log.warning(
                "loading a version; pickle is trusted",
                extra={"version": info.version, "trust": list(settings.trust), "pickle": pickled or "none"},
            )
        preparation.ensure_prepared(folder, info, settings)
        stored = read_version_info(folder)
        known = info if stored is None else replace(info, metrics=stored.metrics)
        return load(known, folder, settings, rows_independent=settings.batch.rows_independent)

    return load_version
