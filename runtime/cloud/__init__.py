"""Runs next to a service in an ECS task: provides its files, and mirrors its folders to S3.

    python -m tidemill.runtime.cloud prepare    before the service: writes config and secrets, restores folders
    python -m tidemill.runtime.cloud keep       while the service runs and until after its end: mirrors its folders
    python -m tidemill.runtime.cloud train -- COMMAND...    runs a training and records its exit code

`TIDEMILL_TASK` is the URL of the object with the `TaskFiles` of the task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.lazy import lazy_exports

__all__ = ["JOBS", "VARIABLE", "client", "place_of", "secret_variable"]

if TYPE_CHECKING:
    from .task_files import VARIABLE, client, place_of, secret_variable
    from .training_task import JOBS
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "task_files": ["VARIABLE", "client", "place_of", "secret_variable"],
            "training_task": ["JOBS"],
        },
    )
