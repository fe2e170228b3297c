"""`python -m tidemill.runtime.serving.versions.warm_cache --settings FILE`: fill the cache before the server starts.

For images: what is prepared while one is built need not be prepared when it starts, and a version which cannot serve
fails the build.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ...common.errors import NotFoundError, TidemillError
from ...common.settings import load_settings
from ..settings import ServingSettings
from .loading import loader
from .source import source_of

__all__ = ["fill", "main"]


def fill(settings: ServingSettings) -> str:
    """Fetch, prepare and load the version which `settings` name; return it with its engine.

    Raises:
        TidemillError: there is none, or it cannot serve.
    """
    source = source_of(settings, settings.alias)
    info = source.resolve()
    if info is None:
        raise NotFoundError("there is no version to serve", field="model", value=settings.model)
    model = loader(settings)(info, source.fetch(info))
    try:
        return f"{info.model} {info.version}: {model.engine.name}"
    finally:
        model.close()


def main(argv: list[str] | None = None) -> int:
    """Do it; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="tidemill.runtime.serving.versions.warm_cache", description="Fill the cache of a server."
    )
    parser.add_argument("--settings", type=Path, required=True, help="JSON file with the settings")
    try:
        said = fill(load_settings(parser.parse_args(argv).settings, ServingSettings))
    except TidemillError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
