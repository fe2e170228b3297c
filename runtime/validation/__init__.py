"""The data gate: Great Expectations suites, and the service that lakeFS calls before a merge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.lazy import lazy_exports

__all__ = ["Decision", "Event", "Gate", "Reason", "Records", "SuiteFile", "SuiteRunner", "action_yaml"]

if TYPE_CHECKING:
    from .action import action_yaml
    from .gate import Decision, Event, Gate
    from .records import Records
    from .suite import Reason, SuiteFile, SuiteRunner
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "action": ["action_yaml"],
            "gate": ["Decision", "Event", "Gate"],
            "records": ["Records"],
            "suite": ["Reason", "SuiteFile", "SuiteRunner"],
        },
    )
