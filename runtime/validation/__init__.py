"""The data gate: Great Expectations suites, and the service that lakeFS calls before a merge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.lazy import lazy_exports

__all__ = ["Event", "Gate", "Reason", "SuiteFile", "SuiteRunner", "Verdict", "action_yaml"]

if TYPE_CHECKING:
    from .action import action_yaml
    from .gate import Event, Gate, Verdict
    from .suite import Reason, SuiteFile, SuiteRunner
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "action": ["action_yaml"],
            "gate": ["Event", "Gate", "Verdict"],
            "suite": ["Reason", "SuiteFile", "SuiteRunner"],
        },
    )
