"""Resolves, downloads, prepares and loads the model, with the code of the model server."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from ..common.errors import NotFoundError
from ..common.settings import ListenSettings
from ..serving import BatchSettings, CompileSettings, ServedModel, ServingSettings, Trusted, loader, source_of
from .model_uri import ModelUri, cache_folder, folder_name, registry_settings


@contextmanager
def open_model(
    uri: str,
    *,
    compiled: bool,
    tracking_uri: str | None,
    cache: Path | None,
    rows_independent: bool | None = None,
    trust: Sequence[Trusted] = (),
) -> Generator[ServedModel]:
    """Return a context with the loaded model at `uri`; see `scorer.score` for the arguments and errors."""
    model_uri = ModelUri.parse(uri)
    registry = registry_settings(tracking_uri) if model_uri.path is None else None
    settings = ServingSettings(
        listen=ListenSettings(port=1, token_file=Path()),  # required, but unused
        model=model_uri.name,
        alias=model_uri.alias or "champion",
        version=model_uri.version,
        path=model_uri.path,
        registry=registry,
        cache=(cache or cache_folder() / "models") / folder_name(model_uri, registry),
        trust=list(trust),
        compile=CompileSettings() if compiled else CompileSettings(engines=[]),
        batch=BatchSettings(rows_independent=rows_independent),
    )
    with closing(source_of(settings, settings.alias)) as source:
        info = source.resolve()
        if info is None:
            what = f"no alias {model_uri.alias}" if model_uri.alias else f"no version {model_uri.version}"
            raise NotFoundError(f"the registry has {what} of {model_uri.name}", field="model", value=uri)
        model = loader(settings)(info, source.fetch(info))
        source.record_served(info)
    try:
        yield model
    finally:
        model.close()
