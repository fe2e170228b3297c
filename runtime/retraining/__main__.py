"""`python -m tidemill.runtime.retraining --settings FILE`: turn alerts into models until SIGTERM."""

from __future__ import annotations

import sys

from ..common import service
from .app import create_app
from .settings import RetrainingSettings


def main(argv: list[str] | None = None) -> int:
    """Run the service; return its exit code."""
    # A running job is ended after the last answer.
    return service.main("retraining", "Turn alerts into models.", RetrainingSettings, create_app, grace=2, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
