"""The rows of a model call, its outputs, and the interface of the engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeAlias

import pyarrow as pa
from numpy.typing import NDArray

from ..engines.outputs import Outputs

COMPILED = frozenset({"tl2cgen", "treelite", "onnxruntime", "linear"})
"""Names of the engines that run a compiled form of the model."""

Values: TypeAlias = list[tuple[Any, ...]] | pa.RecordBatch
"""Valid rows, columns in the order of the contract: tuples of Python values (None is null, times are in UTC), or, for
large requests, a record batch with exactly the Arrow types of the contract."""


@dataclass(slots=True)
class Batch:
    """The rows of one request, or of several merged ones.

    Attributes:
        rows: number of rows, at least one.
        values: the rows.
        event_times: from the client, one per row, in UTC; None if not sent.
        absent: positions of optional columns that no row has; their values are null, and the model does not get them.
        index: the labels of the rows in `dataframe_split`; None if not sent.
        params: the inference parameters with their defaults; None if the signature has none.
        tensors: the inputs of a request whose tensors differ in length, by name. Such a request has no rows: it counts
            as one, whose values are null.
        arrays: columns of arrays are numpy arrays for the model, as MLflow makes them of `inputs`; else lists.
    """

    rows: int
    values: Values
    event_times: Sequence[datetime] | None = None
    absent: frozenset[int] = frozenset()
    index: Sequence[Any] | None = None
    params: Mapping[str, Any] | None = None
    tensors: Mapping[str, NDArray[Any]] | None = None
    arrays: bool = False

    @classmethod
    def merged(cls, batches: Sequence[Batch]) -> Batch:
        """Return the rows of `batches`, all with tuples, as one batch; models do not use event times.

        Each two of them must be `mergeable_with` each other.
        """
        if len(batches) == 1:
            return batches[0]
        values: list[tuple[Any, ...]] = []
        for batch in batches:
            assert isinstance(batch.values, list)  # noqa: S101 - large batches are not merged
            values.extend(batch.values)
        first = batches[0]
        return cls(len(values), values, absent=first.absent, params=first.params, arrays=first.arrays)

    def mergeable_with(self, other: Batch) -> bool:
        """Return whether the model gets the same columns and parameters for both, and no labels of rows."""
        return (
            isinstance(self.values, list)
            and isinstance(other.values, list)
            and self.absent == other.absent
            and self.params == other.params
            and self.arrays == other.arrays
            and self.index is None
            and other.index is None
            and self.tensors is None
            and other.tensors is None
        )


class Engine(Protocol):
    """Computes the predictions of one loaded version.

    Attributes:
        name: one of `COMPILED`; `sklearn`: the original model without MLflow; `pyfunc`: the original model through
            MLflow; `isolated`: pyfunc in a separate process and environment.
        mergeable: whether rows of several requests can go into one call; the served model sets it.
    """

    name: str
    mergeable: bool

    def predict(self, batch: Batch) -> Outputs:
        """Return one value per row. Called from one thread at a time, which is the event loop's for fast engines."""
        ...

    def close(self) -> None:
        """Release all resources. Called after the last prediction."""
