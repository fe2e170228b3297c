"""What runs beside a service in a task of ECS: its files are put in place, its folders are kept in S3.

    python -m tidemill.runtime.cloud prepare    before the service: config, secrets, what its folders held
    python -m tidemill.runtime.cloud keep       beside it, until after its end: what its folders hold now
    python -m tidemill.runtime.cloud train -- COMMAND...    a training which leaves word of how it ended

`TIDEMILL_TASK` names the object with the `TaskFiles` of the task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.lazy import lazy_exports

if TYPE_CHECKING:
    from .task_files import (
        client,
        place_of,
    )
    from .training_task import (
        JOBS,
    )

__all__ = [
    "JOBS",
    "client",
    "place_of",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "task_files": ["client", "place_of"],
        "training_task": ["JOBS"],
    },
)
