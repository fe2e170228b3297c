"""`python -m tidemill.runtime.retraining --settings FILE`: retrain models on alerts until SIGTERM."""

from __future__ import annotations

import sys

from ..common import service
from .app import create_app
from .settings import RetrainingSettings

if __name__ == "__main__":
    # Running jobs are cancelled after the last response.
    sys.exit(service.main("retraining", "Retrain models on alerts.", RetrainingSettings, create_app, grace=2))
