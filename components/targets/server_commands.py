"""How servers are started where targets do not differ in it."""

from __future__ import annotations

from .base import Launch

__all__ = ["MLFLOW"]

MLFLOW = Launch(
    argv=[
        "@{python}",
        "-m",
        "uvicorn",
        "--factory",
        "tidemill.runtime.registry.mlflow_app:create_app",
        "--host",
        "@{host}",
        "--port",
        "@{port}",
        "--no-access-log",
    ],
    env={
        "_MLFLOW_SGI_NAME": "uvicorn",
        "_MLFLOW_SERVER_FILE_STORE": "@{database:mlflow}",
        "_MLFLOW_SERVER_REGISTRY_STORE": "@{database:mlflow}",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": "@{store:mlflow-artifacts}",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "prometheus_multiproc_dir": "@{scratch}/metrics",
        # Empty: the list of language models is not fetched from the network.
        "MLFLOW_MODEL_CATALOG_URI": "",
    },
)
"""MLflow's own application through uvicorn, on the database `mlflow` and the store `mlflow-artifacts`.

The documented `mlflow server` starts four workers beside a parent: twice the time and four times the memory, and SQLite
wants one worker anyway. The names are MLflow's private ones, so its version is pinned. `runtime.registry.mlflow_app` is
that application with `/metrics` open to every account.
"""
