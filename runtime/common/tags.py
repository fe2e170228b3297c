"""Names of the MLflow tags that record where a run and its model version come from."""

from __future__ import annotations

GIT_COMMIT = "tidemill.git.commit"
GIT_DIRTY = "tidemill.git.dirty"
LAKE_REPOSITORY = "tidemill.lake.repository"
LAKE_COMMIT = "tidemill.lake.commit"
LAKE_PATH = "tidemill.lake.path"
ENVIRONMENT = "tidemill.environment.sha256"
COMMAND = "tidemill.command"
JOB_ID = "tidemill.job.id"
GATE_VERDICT = "tidemill.gate.verdict"
"""Tag of a version that the promotion gate judged: `accepted` or `refused`."""

NONE = "none"
"""Tag value for "not applicable": the code is in no Git repository, or no data was read from a lake."""
