"""Training runs that record the code, data and environment of each model.

A training script opens a run, reads validated data and logs a model:

    from tidemill.runtime import training

    with training.run("flights") as run:
        frame = run.read().to_pandas()  # the newest data that passed the gate
        ...
        run.log_metrics({"roc_auc": auc})
        run.log_model(pipeline, features=frame[FEATURES], trusted_types=[...])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.lazy import lazy_exports
from ..common.tags import GIT_COMMIT, JOB_ID, LAKE_COMMIT

__all__ = [
    "GIT_COMMIT",
    "JOB_ID",
    "LAKE_COMMIT",
    "PREDICTION",
    "PROFILE_ARTIFACT",
    "SAMPLE_ARTIFACT",
    "SAMPLE_ROWS",
    "TARGET_ARTIFACT",
    "Run",
    "run",
]

if TYPE_CHECKING:
    from .reference import PREDICTION, PROFILE_ARTIFACT, SAMPLE_ARTIFACT, SAMPLE_ROWS, TARGET_ARTIFACT
    from .runs import Run, run
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "reference": ["PREDICTION", "PROFILE_ARTIFACT", "SAMPLE_ARTIFACT", "SAMPLE_ROWS", "TARGET_ARTIFACT"],
            "runs": ["Run", "run"],
        },
    )
