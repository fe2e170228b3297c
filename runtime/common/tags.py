"""Names of the MLflow tags that record where a run and its model version come from."""

from __future__ import annotations

__all__ = [
    "COMMAND",
    "ENVIRONMENT",
    "GIT_COMMIT",
    "GIT_DIRTY",
    "JOB_ID",
    "LAKE_COMMIT",
    "LAKE_PATH",
    "LAKE_REPOSITORY",
    "NONE",
]

GIT_COMMIT = "tidemill.git.commit"
GIT_DIRTY = "tidemill.git.dirty"
LAKE_REPOSITORY = "tidemill.lake.repository"
LAKE_COMMIT = "tidemill.lake.commit"
LAKE_PATH = "tidemill.lake.path"
ENVIRONMENT = "tidemill.environment.sha256"
COMMAND = "tidemill.command"
JOB_ID = "tidemill.job.id"

NONE = "none"
"""Tag value for "not applicable": the code is in no Git repository, or no data was read from a lake."""
