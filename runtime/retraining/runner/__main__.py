"""`python -m tidemill.runtime.retraining.runner --settings FILE`: run the configured trainings until SIGTERM."""

from __future__ import annotations

import sys

from ...common import service
from .app import create_app
from .settings import RunnerSettings

if __name__ == "__main__":
    sys.exit(service.main("retraining.runner", "Run trainings.", RunnerSettings, create_app, grace=2))
