"""`python -m tidemill.runtime.monitor --settings FILE`: watch the models until SIGTERM."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tidemill.runtime.errors import TidemillError
from tidemill.runtime.service import run
from tidemill.runtime.settings import load_settings

from .app import create_app
from .settings import MonitorSettings


def main(argv: list[str] | None = None) -> int:
    """Run the service; return its exit code."""
    parser = argparse.ArgumentParser(prog="tidemill.runtime.monitor", description="Watch the models.")
    parser.add_argument("--settings", type=Path, required=True, help="JSON file with the settings")
    path: Path = parser.parse_args(argv).settings
    try:
        settings = load_settings(path, MonitorSettings)
        app = create_app(settings)
    except TidemillError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    # Less than the ten seconds after which a service is killed.
    run(app, settings.listen, grace=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
