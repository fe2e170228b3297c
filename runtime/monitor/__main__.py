"""`python -m tidemill.runtime.monitor --settings FILE`: monitor the models until SIGTERM."""

from __future__ import annotations

import sys

from ..common import service
from .app import create_app
from .settings import MonitorSettings


def main(argv: list[str] | None = None) -> int:
    """Run the service; return its exit code."""
    return service.main("monitor", "Monitor the models.", MonitorSettings, create_app, grace=2, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
