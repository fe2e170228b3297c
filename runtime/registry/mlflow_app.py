"""MLflow's own application with authentication, as tidemill starts it.

    uvicorn --factory tidemill.runtime.registry.mlflow_app:create_app

MLflow refuses, to everyone but an administrator, a route which no rule of its own speaks of, and `/metrics` is one.
A scraper which had to be an administrator could delete every model, so here any account may read the counters, and
an account without permissions is enough for that.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["create_app"]


def create_app() -> FastAPI:
    """Return MLflow's application; its settings are MLflow's environment variables."""
    # The exporter keeps a set of files for each process that ever was, and would add the dead to every answer.
    if folder := os.environ.get("prometheus_multiproc_dir"):  # noqa: SIM112 - MLflow's own spelling
        for left in Path(folder).glob("*.db"):
            left.unlink()
    from sqlalchemy.dialects import registry

    # For a URL without a driver SQLAlchemy takes psycopg since 2.1; other programs read the same URL, which names none.
    registry.register("postgresql", "sqlalchemy.dialects.postgresql.psycopg2", "dialect")
    from mlflow.server import auth, handlers

    # As `mlflow server` does before it listens: two first requests at once would both make the tables.
    handlers.initialize_backend_stores()
    auth.BEFORE_REQUEST_VALIDATORS["/metrics", "GET"] = _any_account
    # With `_MLFLOW_SGI_NAME=uvicorn` MLflow wraps its Flask application in a FastAPI one.
    return cast("FastAPI", auth.create_app())


def _any_account() -> bool:
    return True
