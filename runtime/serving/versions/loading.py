"""How a version in the cache becomes one which answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..settings import ServingSettings
from . import preparation
from .model import ServedModel, VersionInfo, load
from .source import version_in

__all__ = ["loader"]


def loader(settings: ServingSettings) -> Callable[[VersionInfo, Path], ServedModel]:
    """Return what prepares a version, once for all workers and in a process of its own, and loads it."""

    def loaded(info: VersionInfo, folder: Path) -> ServedModel:
        preparation.ensure(folder, info, settings)
        stored = version_in(folder)
        return load(info if stored is None else replace(info, metrics=stored.metrics), folder, settings)

    return loaded
