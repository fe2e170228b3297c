"""Serves a compiled model: a pipeline plan, a kernel, and the last step from raw scores to answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..inference.batch import Batch, Outputs
from .kernels import open_kernel
from .pipeline_plan import PipelinePlan
from .prepared import COMPILED, HasPreparationSettings, Prepared

Matrix = NDArray[np.float64]


class CompiledEngine:
    """The engine of a compiled model.

    Args:
        spec: of the engine, from preparation: `name`, `plan`, `kernel` and `finish`.
        folder: of the compiled files.
    """

    def __init__(self, spec: Mapping[str, Any], folder: Path) -> None:
        self.name = str(spec["name"])
        self.mergeable = False
        self._plan = PipelinePlan(spec["plan"])
        self._finish = _finish(spec["finish"])
        self._kernel = open_kernel(self.name, spec["kernel"], folder)

    def predict(self, batch: Batch) -> Outputs:
        """Return one value for each row."""
        return self._finish(self._kernel(self._plan.matrix(batch.values)))

    def close(self) -> None:
        """Unload the compiled files."""
        self._kernel.close()


def load(prepared: Prepared, folder: Path, settings: HasPreparationSettings) -> CompiledEngine:
    """Return the engine that preparation selected."""
    del settings
    return CompiledEngine(prepared.engine, folder / COMPILED)


def _finish(spec: Mapping[str, Any]) -> Callable[[Matrix], Outputs]:
    """Return a function from raw scores to answers.

    `column`: one score. `matrix`: all scores. `labels`: the class with the highest score. `sign`: the second class if
    the only score is above 0 (or equal to 0, with `or_equal`). `outlier`: -1 if the score is above `threshold`, else 1.
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
