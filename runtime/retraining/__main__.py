"""`python -m tidemill.runtime.retraining --settings FILE`: retrain models on alerts until SIGTERM."""

from __future__ import annotations

import sys

from ..common import service
from .app import create_app
from .settings import RetrainingSettings


def main(argv: list[str] | None = None) -> int:
    """Run the service; return its exit code."""
    # Running jobs are cancelled after the last response.
    return service.main("retraining", "Retrain models on alerts.", RetrainingSettings, create_app, grace=2, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
