"""MLflow's own application with authentication, as tidemill starts it: `python -m tidemill.runtime.registry`.

MLflow allows only administrators on routes without a rule of its own, and `/metrics` is such a route. A scraper with
an administrator's password could delete every model. Here any account may read the metrics, so the scraper's account
needs no permissions.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from fastapi import FastAPI


def create_app() -> FastAPI:
    """Return MLflow's application; its settings are MLflow's environment variables."""
    # The exporter keeps files for every process that ever ran, and would count the dead ones too.
    if folder := os.environ.get("prometheus_multiproc_dir"):  # noqa: SIM112 - MLflow's own spelling
        for left in Path(folder).glob("*.db"):
            left.unlink()
    from sqlalchemy.dialects import registry

    # For a URL without a driver, SQLAlchemy uses psycopg since 2.1. Other programs read the same URL.
    registry.register("postgresql", "sqlalchemy.dialects.postgresql.psycopg2", "dialect")
    from mlflow.server import auth, handlers

    # As `mlflow server` does before it listens: two concurrent first requests would both create the tables.
    handlers.initialize_backend_stores()
    auth.BEFORE_REQUEST_VALIDATORS["/metrics", "GET"] = _any_account
    # With `_MLFLOW_SGI_NAME=uvicorn`, MLflow wraps its Flask application in a FastAPI one.
    return cast("FastAPI", auth.create_app())


def _any_account() -> bool:
    return True
