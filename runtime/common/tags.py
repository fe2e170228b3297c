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
"""The job that trained it; on the stack's MLflow, only the training account sets it."""

ACCOUNT = "tidemill.account"
"""Tag of runs, logged models and model versions: the account that created them. Only the stack's MLflow sets it."""

MOVED = "tidemill.moved."
"""Start of tags of versions and registered models; the alias follows. The value says who moved it last, and when.

Only the stack's MLflow sets them.
"""

GATE = "tidemill.gate."
"""Start of the tags that the promotion gate sets; on the stack's MLflow, only accounts that may promote set them."""

GATE_VERDICT = "tidemill.gate.verdict"
"""Tag of a version that the promotion gate judged: `accepted` or `refused`."""

NONE = "none"
"""Tag value for "not applicable": the code is in no Git repository, or no data was read from a lake."""
