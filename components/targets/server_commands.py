"""The commands of servers that start the same way on every target."""

from __future__ import annotations

from .base import Launch

MLFLOW = Launch(
    argv=["@{python}", "-m", "tidemill.runtime.registry", "--host", "@{host}", "--port", "@{port}"],
    env={
        "_MLFLOW_SGI_NAME": "uvicorn",
        "_MLFLOW_SERVER_FILE_STORE": "@{database:mlflow}",
        "_MLFLOW_SERVER_REGISTRY_STORE": "@{database:mlflow}",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": "@{store:mlflow-artifacts}",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "prometheus_multiproc_dir": "@{scratch}/metrics",
        # Empty: MLflow does not download its list of language models.
        "MLFLOW_MODEL_CATALOG_URI": "",
    },
)
"""MLflow's own application on uvicorn with limits, on the database `mlflow` and the store `mlflow-artifacts`.

The documented `mlflow server` starts four workers and a parent: twice the start-up time and four times the memory, and
SQLite needs a single worker. The variables are private to MLflow, so its version is pinned.
`runtime.registry.mlflow_app` is that application with `/metrics` open to every account.
"""
