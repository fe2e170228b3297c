"""The model under BentoML: `bentoml serve bento_app:Service`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bentoml
import joblib
import numpy as np
from frames import Frames

_FOLDER = Path(os.environ["BENCHMARK_MODEL"])
_BATCH = int(os.environ["BENCHMARK_BATCH"])


class _Loaded:
    def __init__(self) -> None:
        self.model = joblib.load(_FOLDER / "model.joblib")
        self.frames = Frames(_FOLDER)

    def probabilities(self, rows: Any) -> np.ndarray:
        return self.model.predict_proba(self.frames.of(rows))[:, 1]


if Frames(_FOLDER).texts:

    @bentoml.service(workers=1, traffic={"timeout": 60})
    class Service(_Loaded):
        @bentoml.api(batchable=True, max_batch_size=_BATCH)
        def predict(self, rows: list[list[float | str | None]]) -> list[float]:
            return self.probabilities(rows).tolist()

else:

    @bentoml.service(workers=1, traffic={"timeout": 60})
    class Service(_Loaded):
        @bentoml.api(batchable=True, max_batch_size=_BATCH)
        def predict(self, rows: np.ndarray) -> np.ndarray:
            return self.probabilities(rows)
