"""`python -m tidemill.runtime.validation --settings FILE`: validate data before lakeFS merges it, until SIGTERM."""

from __future__ import annotations

import sys

from ..common import service
from .service import create_app
from .settings import ValidationSettings


def main(argv: list[str] | None = None) -> int:
    """Run the service; return its exit code."""
    return service.main("validation", "Validate data.", ValidationSettings, create_app, grace=8, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
