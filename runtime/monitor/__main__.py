"""`python -m tidemill.runtime.monitor --settings FILE`: watch the models until SIGTERM."""

from __future__ import annotations

import sys

from tidemill.runtime import service
from tidemill.runtime.monitor.app import create_app
from tidemill.runtime.monitor.settings import MonitorSettings


def main(argv: list[str] | None = None) -> int:
    """Run the service; return its exit code."""
    return service.main("monitor", "Watch the models.", MonitorSettings, create_app, grace=2, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
