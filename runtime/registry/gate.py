"""The promotion gate: compares a run's metric with the minimum that its model requires."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..common.settings import PromoteSettings


@dataclass(frozen=True)
class Verdict:
    """The promotion gate's decision on a version.

    Attributes:
        accepted: whether the version is now the champion.
        reasons: one sentence each, also when the version is accepted.
        model, version: the version that was judged.
        previous: the champion that it replaces, if any.
        value: the judged metric, if the run logged it.
    """

    accepted: bool
    reasons: tuple[str, ...]
    model: str
    version: str
    previous: str | None = None
    value: float | None = None


def judge(gate: PromoteSettings, value: float | None) -> tuple[bool, str]:
    """Return whether the metric's `value` passes, and why.

    >>> judge(PromoteSettings(metric="roc_auc", at_least=0.65), 0.6)
    (False, 'roc_auc is 0.6000, below the minimum of 0.6500')
    """
    if value is None:
        return False, f"the run did not log the metric {gate.metric}"
    if math.isnan(value):
        return False, f"{gate.metric} is not a number"
    if value < gate.at_least:
        return False, f"{gate.metric} is {value:.4f}, below the minimum of {gate.at_least:.4f}"
    return True, f"{gate.metric} is {value:.4f}, at or above the minimum of {gate.at_least:.4f}"
