"""Scores lake data or files with a registered model, in constant memory, with lineage on the result.

Example:
    from tidemill.runtime import batch_scoring

    result = batch_scoring.score("models:/flights@champion", "flights/main/departures", "scores.parquet", keep=["id"])
    result.rows, result.version, result.input_commit
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.lazy import lazy_exports

__all__ = ["Progress", "ScoringResult", "score"]

if TYPE_CHECKING:
    from .scorer import Progress, ScoringResult, score
else:
    __getattr__ = lazy_exports(__name__, {"scorer": ["Progress", "ScoringResult", "score"]})
