"""Batch scoring: a model of the registry over a lake path or files, in constant memory, with lineage on the result.

from tidemill.runtime import scoring

done = scoring.score("models:/flights@champion", "flights/main/departures", "scores.parquet", keep=["id"])
done.rows, done.version, done.input_commit
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidemill.runtime.scoring.scorer import Progress, Scored, score

__all__ = ["Progress", "Scored", "score"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("tidemill.runtime.scoring.scorer"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
