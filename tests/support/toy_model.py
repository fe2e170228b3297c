"""Served models whose engine is a function of the test; everything around them is the real thing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
from tidemill.runtime.serving.contract.model_contract import Column, Contract
from tidemill.runtime.serving.inference.batch import Batch
from tidemill.runtime.serving.versions.model import VersionInfo

__all__ = ["ToyModel"]


class ToyModel:
    """Doubles its one column, unless told otherwise; notes each call, and waits in it for `gate`."""

    def __init__(self, version: str = "1", compute: Callable[[Any], Any] = lambda values: values * 2) -> None:
        self.info = VersionInfo("toy", version, "champion", f"models:/m-{version}", "run", {})
        self.contract = Contract((Column("a", "double"),))
        self.output = "score"
        self.output_type = pa.struct([("score", pa.float64())])
        self.engine = SimpleNamespace(name="sklearn", mergeable=True)
        self.rows_independent, self.merging_note = True, ""
        self.calls: list[list[float]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.closed = False
        self._compute = compute

    def predict(self, batch: Batch) -> Any:
        assert not self.closed, "it was closed while somebody used it"
        assert isinstance(batch.values, list)
        values = [row[0] for row in batch.values]
        self.calls.append(values)
        self.entered.release()
        assert self.gate.wait(30)
        return self._compute(np.array(values, dtype=float))

    def close(self) -> None:
        assert not self.closed
        self.closed = True
