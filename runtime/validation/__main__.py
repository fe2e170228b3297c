"""`python -m tidemill.runtime.validation --settings FILE`: validate data before lakeFS merges it, until SIGTERM."""

from __future__ import annotations

import sys

from ..common import service
from .service import create_app
from .settings import ValidationSettings

if __name__ == "__main__":
    sys.exit(service.main("validation", "Validate data.", ValidationSettings, create_app, grace=8))
