"""MLflow's own application with authentication, as `python -m tidemill.runtime.registry` starts it on every target.

The table in `mlflow_routes` says which account may use which route. MLflow's own checks of single experiments and
models come after it. `mlflow_stores` keeps artifacts in the server's own store and records who did what.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from fastapi import FastAPI
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore


def create_app() -> FastAPI:
    """Return MLflow's application; its settings are MLflow's environment variables."""
    # The exporter keeps files for every process that ever ran, and would count the dead ones too.
    if folder := os.environ.get("prometheus_multiproc_dir"):  # noqa: SIM112 - MLflow's own spelling
        for left in Path(folder).glob("*.db"):
            left.unlink()
    from sqlalchemy.dialects import registry

    # For a URL without a driver, SQLAlchemy uses psycopg since 2.1. Other programs read the same URL.
    registry.register("postgresql", "sqlalchemy.dialects.postgresql.psycopg2", "dialect")
    from mlflow.server import app as flask
    from mlflow.server import auth, handlers
    from mlflow.server.fastapi_security import HostValidationMiddleware, get_allowed_hosts

    from ..common.service import JsonFormatter
    from . import mlflow_stores
    from .mlflow_guard import Credentials, Guard, Routes, log

    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    mlflow_stores.install()
    # As `mlflow server` does before it listens: two concurrent first requests would both create the tables.
    handlers.initialize_backend_stores()
    # MLflow has no rule for this route, so it would allow only administrators.
    auth.BEFORE_REQUEST_VALIDATORS["/metrics", "GET"] = _permitted
    # With `_MLFLOW_SGI_NAME=uvicorn`, MLflow wraps its Flask application in a FastAPI one.
    app = cast("FastAPI", auth.create_app())
    _create_roles(auth.store)
    # The middleware that is added last runs first: the check of the Host header, before any password is verified.
    app.add_middleware(
        Guard,
        routes=Routes(app, flask),
        credentials=Credentials(auth.store),
        upload_problem=mlflow_stores.upload_problem_here,
    )
    app.add_middleware(HostValidationMiddleware, allowed_hosts=get_allowed_hosts())
    return app


def _permitted() -> bool:
    """Leave the decision to the table of routes."""
    return True


def _create_roles(store: SqlAlchemyStore) -> None:
    """Create MLflow's roles for people, with their permissions on all experiments and models."""
    from mlflow.exceptions import MlflowException

    from .accounts import GRANTS, ROLE_PREFIX, WORKSPACE

    for role, grants in GRANTS.items():
        name = ROLE_PREFIX + role
        try:
            made = store.create_role(name, WORKSPACE, f"People who may {role}; see `tidemill users`")
        except MlflowException:
            # It exists, or another process of this server has just created it.
            made = store.get_role_by_name(WORKSPACE, name)
        found = {permission.resource_type for permission in store.list_role_permissions(made.id)}
        for kind in grants.keys() - found:
            try:
                store.add_role_permission(made.id, kind, "*", grants[kind])
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
