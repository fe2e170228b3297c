"""A second version which is asked the same rows, off the path of the requests, and never answers anybody.

Both answers are compared and captured; what the shadow is too slow for is dropped and counted. It is given nothing
while requests wait for the model: under load it is the first to go.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from ..contract.model_contract import Contract
from ..inference.batch import Batch, Outputs, is_finite
from ..recording.writer import CapturedRequest
from ..telemetry.traffic import Traffic
from .alias_watcher import Follower
from .in_flight import Leases
from .model import ServedModel

__all__ = ["SHADOW", "Shadow", "compare", "translated"]

_log = logging.getLogger(__name__)

SHADOW = "shadow"
"""The role under which its answers are captured."""

_HELD_ROWS = 2_000
_CALL_ROWS = 256


class Shadow:
    """Asks the version which `follower` follows.

    Args:
        follower: follows the shadow's alias.
        traffic: where it is counted.
        take: captures an answer.
    """

    def __init__(self, follower: Follower, traffic: Traffic, take: Callable[[CapturedRequest], None]) -> None:
        self.follower = follower
        self._traffic = traffic
        self._take = take
        self._leases = Leases()
        self._loop = asyncio.get_running_loop()
        self._held: deque[tuple[ServedModel, CapturedRequest]] = deque()
        self._rows = 0
        self._changed = threading.Condition()
        self._closing = False
        self._told = ""
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, answered: CapturedRequest, *, busy: bool) -> None:
        """Have the shadow answer the rows of `answered` too; dropped where `busy`, or where much is held already."""
        model = self.follower.current
        if model is None or model.info.identity == answered.model.info.identity:
            return
        rows = answered.batch.rows
        if busy or self._rows + rows > _HELD_ROWS:
            self._traffic.shadow_dropped += rows
            return
        self._leases.take(model)
        with self._changed:
            self._held.append((model, answered))
            self._rows += rows
            self._changed.notify()

    def retire(self, model: ServedModel) -> None:
        """Close a version which is the shadow no more, once it is not asked any longer."""
        self._leases.retire(model)

    def close(self) -> None:
        """End; what is held is dropped."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(5)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._held and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
                call = [self._held.popleft()]
                rows = call[0][1].batch.rows
                while self._held and self._goes_with(call[0], self._held[0], rows):
                    call.append(self._held.popleft())
                    rows += call[-1][1].batch.rows
                self._rows -= rows
            found = self._ask(call)
            try:
                self._loop.call_soon_threadsafe(self._done, call, found)
            except RuntimeError:  # the loop is closed
                return

    @staticmethod
    def _goes_with(
        first: tuple[ServedModel, CapturedRequest], other: tuple[ServedModel, CapturedRequest], rows: int
    ) -> bool:
        return (
            first[0] is other[0]
            and first[0].engine.mergeable
            and first[1].model is other[1].model
            and isinstance(first[1].batch.values, list)
            and isinstance(other[1].batch.values, list)
            and rows + other[1].batch.rows <= _CALL_ROWS
        )

    def _ask(self, call: list[tuple[ServedModel, CapturedRequest]]) -> list[CapturedRequest] | None:
        """Return the shadow's answers to `call`, or None where it has none."""
        model = call[0][0]
        try:
            batches = [translated(answered.batch, answered.model.contract, model.contract) for _, answered in call]
            outputs = model.predict(Batch.merged(batches))
            if not is_finite(outputs):
                raise ValueError("an answer which is not finite")
        except Exception as error:  # noqa: BLE001 - a shadow may fail as it likes; nobody waits for it
            if (text := f"{type(error).__name__}: {error}"[:500]) != self._told:
                self._told = text
                _log.warning("the shadow gives no answer", extra={"version": model.info.version, "error": text})
            return None
        found: list[CapturedRequest] = []
        position = 0
        for (_, answered), batch in zip(call, batches, strict=True):
            end = position + batch.rows
            part = replace(batch, event_times=answered.batch.event_times)
            found.append(replace(answered, model=model, role=SHADOW, batch=part, outputs=outputs[position:end]))
            position = end
        return found

    def _done(self, call: list[tuple[ServedModel, CapturedRequest]], found: list[CapturedRequest] | None) -> None:
        traffic = self._traffic
        for index, (model, answered) in enumerate(call):
            self._leases.give(model)
            if found is None:
                traffic.shadow_dropped += answered.batch.rows
                continue
            traffic.shadow_rows += answered.batch.rows
            differences, disagreed = compare(answered.outputs, found[index].outputs, model.output)
            traffic.shadow_disagreed += disagreed
            for difference in differences:
                traffic.shadow_difference.observe(difference)
            self._take(found[index])


def translated(batch: Batch, given: Contract, wanted: Contract) -> Batch:
    """Return `batch`, whose columns are those of `given`, as `wanted` wants it.

    Raises:
        ValueError: what was asked for `given` is not always enough for `wanted`.
    """
    if given == wanted:
        return batch
    known = {column.name for column in wanted.columns}
    # A column which the shadow does without is no reason against it.
    if reasons := wanted.why_not(replace(given, columns=tuple(c for c in given.columns if c.name in known))):
        raise ValueError("; ".join(reasons))
    names = [column.name for column in given.columns]
    positions = [names.index(column.name) if column.name in names else None for column in wanted.columns]
    values = batch.values
    if isinstance(values, list):
        moved = [tuple(None if at is None else row[at] for at in positions) for row in values]
        return Batch(batch.rows, moved, batch.event_times)
    fields = list(wanted.arrow)
    arrays: list[pa.Array] = [
        pa.nulls(batch.rows, field.type) if at is None else values.column(at).cast(field.type)
        for field, at in zip(fields, positions, strict=True)
    ]
    return Batch(batch.rows, pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)), batch.event_times)


def compare(answer: Outputs, other: Outputs, output: str) -> tuple[list[float], int]:
    """Return the absolute differences between two answers (empty where they are no numbers), and how many disagree.

    Scores disagree where one says the class and the other does not (0.5 parts them); several scores a row where another
    one is the highest, and their difference is the largest of the row; anything else where it is not the same.
    """
    try:
        ours, theirs = np.asarray(answer, dtype=float), np.asarray(other, dtype=float)
    except (TypeError, ValueError):
        return [], sum(1 for mine, its in zip(list(answer), list(other), strict=True) if _differ(mine, its))
    if ours.shape != theirs.shape:
        return [], len(ours)
    differences = np.abs(ours - theirs)
    if ours.ndim > 1:
        differences = differences.reshape(len(ours), -1).max(axis=1)
    if output == "score":
        disagreed = (ours >= 0.5) != (theirs >= 0.5)
    elif output == "scores":
        disagreed = ours.argmax(axis=1) != theirs.argmax(axis=1)
    else:
        disagreed = differences > 1e-9 * np.maximum(1.0, np.abs(ours).reshape(len(ours), -1).max(axis=1))
    return differences.tolist(), int(disagreed.sum())


def _differ(mine: Any, its: Any) -> bool:
    return bool(np.any(np.asarray(mine) != np.asarray(its)))
