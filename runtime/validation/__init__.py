"""The gate: expectations, and the service which the lake calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.lazy import lazy_exports

if TYPE_CHECKING:
    from .action import (
        action_yaml,
    )
    from .gate import (
        Event,
        Gate,
        Verdict,
    )
    from .suite import (
        Reason,
        SuiteFile,
        SuiteRunner,
    )

__all__ = [
    "Event",
    "Gate",
    "Reason",
    "SuiteFile",
    "SuiteRunner",
    "Verdict",
    "action_yaml",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "action": ["action_yaml"],
        "gate": ["Event", "Gate", "Verdict"],
        "suite": ["Reason", "SuiteFile", "SuiteRunner"],
    },
)
