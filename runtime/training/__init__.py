"""Training runs that record the code, data and environment a model came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.lazy import lazy_exports

if TYPE_CHECKING:
    from .lineage import (
        GIT_COMMIT,
        JOB_ID,
        LAKE_COMMIT,
    )
    from .runs import (
        PREDICTION,
        PROFILE_ARTIFACT,
        SAMPLE_ARTIFACT,
        SAMPLE_ROWS,
        Run,
        run,
    )

__all__ = [
    "GIT_COMMIT",
    "JOB_ID",
    "LAKE_COMMIT",
    "PREDICTION",
    "PROFILE_ARTIFACT",
    "SAMPLE_ARTIFACT",
    "SAMPLE_ROWS",
    "Run",
    "run",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "lineage": ["GIT_COMMIT", "JOB_ID", "LAKE_COMMIT"],
        "runs": ["PREDICTION", "PROFILE_ARTIFACT", "Run", "SAMPLE_ARTIFACT", "SAMPLE_ROWS", "run"],
    },
)
