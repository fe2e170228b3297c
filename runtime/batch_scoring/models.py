"""The model which scores: found, downloaded, prepared and loaded by the model server's own code."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ..common.errors import NotFoundError
from ..common.settings import ListenSettings
from ..serving import CompileSettings, ServedModel, ServingSettings, loader, source_of
from .model_uri import ModelUri, cache_folder, folder_name, registry_settings

__all__ = ["loaded"]


@contextmanager
def loaded(uri: str, *, compiled: bool, tracking_uri: str | None, cache: Path | None) -> Generator[ServedModel]:
    """Give the model which `uri` names, ready to answer; see `scorer.score` for the arguments and the errors."""
    meant = ModelUri.parse(uri)
    registry = registry_settings(tracking_uri) if meant.path is None else None
    settings = ServingSettings(
        # Nothing listens.
        listen=ListenSettings(port=1, token_file=Path()),
        model=meant.name,
        alias=meant.alias or "champion",
        version=meant.version,
        path=meant.path,
        registry=registry,
        cache=(cache or cache_folder() / "models") / folder_name(meant, registry),
        compile=CompileSettings() if compiled else CompileSettings(engines=[]),
    )
    source = source_of(settings, settings.alias)
    info = source.resolve()
    if info is None:
        what = f"no alias {meant.alias}" if meant.alias else f"no version {meant.version}"
        raise NotFoundError(f"the registry has {what} of {meant.name}", field="model", value=uri)
    model = loader(settings)(info, source.fetch(info))
    source.record_served(info)
    try:
        yield model
    finally:
        model.close()
