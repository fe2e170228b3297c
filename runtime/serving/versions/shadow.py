"""Runs a second version on the same rows, outside the request path; clients never see its predictions.

Its predictions are compared with those of the serving version, and captured. Rows are dropped and counted if the shadow
is too slow, or while requests wait for the serving version: under load, the shadow stops first.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeGuard, cast

import numpy as np
import pyarrow as pa

from ..contract.model_contract import Contract
from ..engines.outputs import Answer
from ..inference.batch import Batch, Outputs
from ..recording.writer import CapturedRequest
from ..telemetry.traffic import Traffic
from .alias_watcher import AliasWatcher
from .in_flight import InFlightCalls
from .model import ServedModel

_log = logging.getLogger(__name__)

SHADOW = "shadow"
"""The role of its predictions in the capture."""

_MAX_QUEUED_ROWS = 2_000
_MAX_CALL_ROWS = 256
# Relative difference of numbers that count as equal.
_EQUAL = 1e-9


class Shadow:
    """Runs the version of the shadow alias.

    Args:
        alias_watcher: watches the shadow's alias.
        traffic: counts rows, drops and differences.
        capture: captures a prediction.
    """

    def __init__(
        self, alias_watcher: AliasWatcher, traffic: Traffic, capture: Callable[[CapturedRequest], None]
    ) -> None:
        self.alias_watcher = alias_watcher
        self._traffic = traffic
        self._capture = capture
        self._in_flight = InFlightCalls()
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[ServedModel, CapturedRequest]] = deque()
        self._queued_rows = 0
        self._changed = threading.Condition()
        self._closing = False
        self._last_error = ""
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, answered: CapturedRequest, *, busy: bool) -> None:
        """Queue the rows of `answered` for the shadow; drop them if `busy` or if the queue is full."""
        model = self.alias_watcher.current
        if model is None or model.info.identity == answered.model.info.identity:
            return
        rows = answered.batch.rows
        if busy or self._queued_rows + rows > _MAX_QUEUED_ROWS:
            self._traffic.shadow_dropped += rows
            return
        self._in_flight.begin(model)
        with self._changed:
            self._queue.append((model, answered))
            self._queued_rows += rows
            self._changed.notify()

    def retire(self, model: ServedModel) -> None:
        """Close a version that was replaced as the shadow, after its last call."""
        self._in_flight.retire(model)

    def close(self) -> None:
        """Stop the thread; drop queued rows."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(5)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
                call = [self._queue.popleft()]
                rows = call[0][1].batch.rows
                while self._queue and self._mergeable(call[0], self._queue[0], rows):
                    call.append(self._queue.popleft())
                    rows += call[-1][1].batch.rows
                self._queued_rows -= rows
            predictions = self._predict(call)
            try:
                self._loop.call_soon_threadsafe(self._done, call, predictions)
            except RuntimeError:  # the loop is closed
                return

    @staticmethod
    def _mergeable(
        first: tuple[ServedModel, CapturedRequest], other: tuple[ServedModel, CapturedRequest], rows: int
    ) -> bool:
        return (
            first[0] is other[0]
            and first[0].engine.mergeable
            and first[1].model is other[1].model
            and first[1].batch.mergeable_with(other[1].batch)
            and rows + other[1].batch.rows <= _MAX_CALL_ROWS
        )

    def _predict(self, call: list[tuple[ServedModel, CapturedRequest]]) -> list[CapturedRequest] | None:
        """Return the shadow's predictions for `call`, or None if it fails."""
        model = call[0][0]
        try:
            batches = [adapt_batch(answered.batch, answered.model.contract, model.contract) for _, answered in call]
            parts = _predict_parts(model, batches)
        except Exception as error:  # noqa: BLE001 - a broken model may raise anything, and no client waits
            if (text := f"{type(error).__name__}: {error}"[:500]) != self._last_error:
                self._last_error = text
                _log.warning("the shadow failed", extra={"version": model.info.version, "error": text})
            return None
        return [
            replace(
                answered,
                model=model,
                role=SHADOW,
                batch=replace(batch, event_times=answered.batch.event_times),
                outputs=outputs,
            )
            for (_, answered), batch, outputs in zip(call, batches, parts, strict=True)
        ]

    def _done(self, call: list[tuple[ServedModel, CapturedRequest]], predictions: list[CapturedRequest] | None) -> None:
        traffic = self._traffic
        for index, (model, answered) in enumerate(call):
            self._in_flight.end(model)
            if predictions is None:
                traffic.shadow_dropped += answered.batch.rows
                continue
            traffic.shadow_rows += answered.batch.rows
            differences, disagreed = compare(answered.outputs, predictions[index].outputs, model.output)
            is_whole = any(
                isinstance(each, Answer) and each.rows is None
                for each in (answered.outputs, predictions[index].outputs)
            )
            # Of an answer of the whole request, all rows agree or none.
            traffic.shadow_disagreed += answered.batch.rows if is_whole and disagreed else disagreed
            for difference in differences:
                traffic.shadow_difference.observe(difference)
            self._capture(predictions[index])


def adapt_batch(batch: Batch, source: Contract, target: Contract) -> Batch:
    """Return `batch`, with the columns of `source`, converted to the columns of `target`.

    Raises:
        ValueError: `target` does not accept all rows of `source`.
    """
    if source == target and source.params == target.params:
        return batch
    known = {column.name for column in target.columns}
    # Columns and parameters that the target does not have are left out; the values of parameters are converted below.
    shared = replace(source, columns=tuple(c for c in source.columns if c.name in known), params=None)
    if reasons := target.incompatibilities(shared):
        raise ValueError("; ".join(reasons))
    names = [column.name for column in source.columns]
    positions = [names.index(column.name) if column.name in names else None for column in target.columns]
    values = batch.values
    absent = frozenset(position for position, at in enumerate(positions) if at is None or at in batch.absent)
    params = target.shared_params(batch.params)
    if isinstance(values, list):
        reordered = [tuple(None if at is None else row[at] for at in positions) for row in values]
        return replace(batch, values=reordered, absent=absent, params=params)
    fields = list(target.arrow)
    arrays: list[pa.Array] = [
        pa.nulls(batch.rows, field.type) if at is None else values.column(at).cast(field.type)
        for field, at in zip(fields, positions, strict=True)
    ]
    converted = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
    return replace(batch, values=converted, absent=absent, params=params)


def _predict_parts(model: ServedModel, batches: Sequence[Batch]) -> list[Outputs]:
    """Return the outputs for each of `batches`, from one call if the model answers by row."""
    outputs = model.predict(Batch.merged(batches))
    if len(batches) == 1:
        return [outputs]
    if isinstance(outputs, Answer) and outputs.rows is None:
        return [model.predict(batch) for batch in batches]
    parts: list[Outputs] = []
    position = 0
    for batch in batches:
        parts.append(outputs[position : position + batch.rows])
        position += batch.rows
    return parts


def compare(served: Outputs, shadow: Outputs, output: str) -> tuple[list[float], int]:
    """Return the absolute differences between two predictions (empty if not numbers), and how many rows disagree.

    A `score` disagrees if it is on the other side of 0.5, `scores` if another class is highest (their difference is the
    largest of the row), and anything else if it is not equal. An answer of the whole request counts as one row. NaN
    equals NaN.
    """
    ours, theirs = _rows(served), _rows(shadow)
    found = _compare_arrays(ours, theirs, output)
    if found is not None:
        return found
    if len(ours) != len(theirs):
        return [], max(len(ours), len(theirs))
    pairs = [_compare_values(one, other) for one, other in zip(ours, theirs, strict=True)]
    differences = [difference for difference, _ in pairs if difference is not None and math.isfinite(difference)]
    return differences, sum(disagree for _, disagree in pairs)


def _rows(outputs: Outputs) -> list[Any]:
    """Return one JSON value for each row, or one for the whole request."""
    if isinstance(outputs, Answer):
        rows = outputs.to_rows()
        return [outputs.to_mlflow()] if rows is None else rows
    return outputs.tolist() if isinstance(outputs, np.ndarray) else outputs


def _compare_arrays(served: list[Any], shadow: list[Any], output: str) -> tuple[list[float], int] | None:
    """Compare numbers; None if they are not finite arrays of the same shape."""
    try:
        ours, theirs = np.asarray(served), np.asarray(shadow)
    except ValueError:
        return None
    if ours.shape != theirs.shape or not ours.size or not {ours.dtype.kind, theirs.dtype.kind} <= set("iuf"):
        return None
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    if not np.isfinite(ours).all() or not np.isfinite(theirs).all():
        return None
    differences = np.abs(ours - theirs)
    if output == "score" and ours.ndim == 1:
        disagreed = (ours >= 0.5) != (theirs >= 0.5)
    elif output == "scores" and ours.ndim == 2:
        disagreed = ours.argmax(axis=1) != theirs.argmax(axis=1)
    else:
        allowed = _EQUAL * np.maximum(1.0, np.abs(ours))
        disagreed = (differences > allowed).reshape(len(ours), -1).any(axis=1)
    return differences.reshape(len(ours), -1).max(axis=1).tolist(), int(disagreed.sum())


def _compare_values(one: Any, other: Any) -> tuple[float | None, bool]:
    """Return the largest difference between the numbers of two JSON values, and whether the values disagree."""
    if isinstance(one, dict) and isinstance(other, dict):
        left, right = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
        pairs = [_compare_values(left[key], right[key]) for key in left if key in right]
        same_shape = left.keys() == right.keys()
    elif isinstance(one, list) and isinstance(other, list):
        pairs = [_compare_values(*pair) for pair in zip(one, other, strict=False)]
        same_shape = len(cast("list[Any]", one)) == len(cast("list[Any]", other))
    elif _is_number(one) and _is_number(other):
        if one == other or (one != one and other != other):
            return 0.0, False
        difference = abs(float(one) - float(other))
        return difference, not difference <= _EQUAL * max(1.0, abs(float(one)))
    else:
        return None, type(one) is not type(other) or one != other
    largest = max((difference for difference, _ in pairs if difference is not None), default=None)
    return largest, not same_shape or any(disagree for _, disagree in pairs)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
