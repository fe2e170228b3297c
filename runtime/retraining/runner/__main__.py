"""`python -m tidemill.runtime.retraining.runner --settings FILE`: run the configured trainings until SIGTERM."""

from __future__ import annotations

import sys

from ...common import service
from .app import create_app
from .settings import RunnerSettings


def main(argv: list[str] | None = None) -> int:
    """Run the service; return its exit code."""
    return service.main("retraining.runner", "Run trainings.", RunnerSettings, create_app, grace=2, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
