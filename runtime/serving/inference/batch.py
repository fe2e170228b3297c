"""Rows on their way to a model, and what the model gives for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["COMPILED", "Batch", "Engine", "Outputs", "Values", "is_finite"]

COMPILED = frozenset({"tl2cgen", "treelite", "onnxruntime", "linear"})
"""Names of the engines which are another form of the model than the one that was logged."""

Values: TypeAlias = list[tuple[Any, ...]] | pa.RecordBatch
"""Checked rows in the order of the contract's columns: tuples of Python values (None is null, times are UTC with their
zone), or a record batch with exactly the contract's Arrow types, which is what large and Arrow requests come as."""

Outputs: TypeAlias = NDArray[Any] | list[Any]
"""One value a row: a float array of shape (n,) or (n, k), or a list of n values which JSON can hold."""


@dataclass(slots=True)
class Batch:
    """The rows of one request, or of several which are answered together.

    Attributes:
        rows: how many, at least one.
        values: the rows.
        event_times: what the client said, one a row, UTC; None where it said nothing.
    """

    rows: int
    values: Values
    event_times: Sequence[datetime] | None = None

    @classmethod
    def merged(cls, batches: Sequence[Batch]) -> Batch:
        """Return the rows of `batches`, all of tuples, in one; event times are left out: no model sees them."""
        if len(batches) == 1:
            return batches[0]
        values: list[tuple[Any, ...]] = []
        for batch in batches:
            assert isinstance(batch.values, list)  # noqa: S101 - large batches are not merged
            values.extend(batch.values)
        return cls(len(values), values)


class Engine(Protocol):
    """What computes the answers of one loaded version.

    Attributes:
        name: `tl2cgen`, `treelite`, `onnxruntime`: compiled; `sklearn`: the model itself without MLflow; `pyfunc`: the
            model itself through MLflow; `isolated`: pyfunc in a process and environment of its own.
        mergeable: whether rows of several requests may go into one call.
    """

    name: str
    mergeable: bool

    def predict(self, batch: Batch) -> Outputs:
        """Return one value a row. Called from one thread at a time; from the event loop's where it is soon done."""
        ...

    def close(self) -> None:
        """Give back what it holds; no call is under way and none will come."""
        ...


def is_finite(outputs: Outputs) -> bool:
    """Tell whether `outputs` can be said in JSON."""
    return not (isinstance(outputs, np.ndarray) and outputs.dtype.kind in "fc" and not np.isfinite(outputs).all())
