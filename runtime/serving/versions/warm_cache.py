"""Fills the cache before a server starts: `python -m tidemill.runtime.serving.versions.warm_cache --settings FILE`.

Images run it while they are built: the server then starts faster, and a version that cannot serve fails the build.
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


def warm_cache(settings: ServingSettings) -> str:
    """Download, prepare and load the version that `settings` select; return its name, number and engine.

    Raises:
        TidemillError: there is no such version, or it cannot serve.
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
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="tidemill.runtime.serving.versions.warm_cache",
        description="Download and prepare a model version before the server starts.",
    )
    parser.add_argument("--settings", type=Path, required=True, help="JSON file with the settings of the server")
    try:
        line = warm_cache(load_settings(parser.parse_args(argv).settings, ServingSettings))
    except TidemillError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{line}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
