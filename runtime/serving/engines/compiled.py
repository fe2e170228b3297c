"""A model which was compiled in preparation, and agreed with itself there: a plan, a kernel, and what is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..inference.batch import Batch, Outputs
from .kernels import open_kernel
from .pipeline_plan import Plan
from .prepared import COMPILED, Prepared, Wanted

__all__ = ["CompiledEngine", "load"]

Matrix = NDArray[np.float64]


class CompiledEngine:
    """The engine.

    Args:
        spec: what preparation wrote: `name`, `mergeable`, `plan`, `kernel` and `finish`.
        folder: where what was compiled is.
    """

    def __init__(self, spec: Mapping[str, Any], folder: Path) -> None:
        self.name = str(spec["name"])
        self.mergeable = bool(spec["mergeable"])
        self._plan = Plan(spec["plan"])
        self._finish = _finish(spec["finish"])
        self._kernel = open_kernel(self.name, spec["kernel"], folder)

    def predict(self, batch: Batch) -> Outputs:
        """Return one value a row."""
        return self._finish(self._kernel(self._plan.matrix(batch.values)))

    def close(self) -> None:
        """Unload what was compiled."""
        self._kernel.close()


def load(prepared: Prepared, folder: Path, settings: Wanted) -> CompiledEngine:
    """Load what preparation chose."""
    del settings
    return CompiledEngine(prepared.engine, folder / COMPILED)


def _finish(spec: Mapping[str, Any]) -> Callable[[Matrix], Outputs]:
    """Return what makes answers of raw scores.

    `column`: one of them; `matrix`: all; `labels`: the class with the highest, or, with one score, the second class
    where it is above `threshold` (or on it, with `or_equal`); `outlier`: -1 where it is above `threshold`, else 1.
    """
    kind = spec["kind"]
    if kind == "column":
        column = int(spec["column"])
        return lambda raw: raw[:, column]
    if kind == "matrix":
        return lambda raw: raw
    if kind == "outlier":
        threshold = float(spec["threshold"])
        offset = float(spec["offset"])
        return lambda raw: np.where(-raw[:, 0] - offset < threshold, -1, 1).tolist()
    labels: list[Any] = spec["labels"]
    if kind == "labels":
        return lambda raw: [labels[index] for index in raw.argmax(axis=1).tolist()]
    if spec["or_equal"]:
        return lambda raw: [labels[score >= 0.0] for score in raw[:, 0].tolist()]
    return lambda raw: [labels[score > 0.0] for score in raw[:, 0].tolist()]
