"""`python -m tidemill.runtime.monitor --settings FILE`: monitor the models until SIGTERM."""

from __future__ import annotations

import sys

from ..common import service
from .app import create_app
from .settings import MonitorSettings

if __name__ == "__main__":
    sys.exit(service.main("monitor", "Monitor the models.", MonitorSettings, create_app, grace=2))
