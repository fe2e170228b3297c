"""Batches of 10,000 rows in one request: as JSON, and as Arrow."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.benchmarks.measure import interleave, judge, ratio_of, table
from tests.benchmarks.serving import models, wrk
from tests.benchmarks.serving.checking import check_batch
from tests.benchmarks.serving.contestants import OURS, OWN, Served, bentoml, mlflow, mlserver, tidemill
from tests.benchmarks.serving.models import Model

_CONNECTIONS = 2
_DIFFERENT = 4
_ARROW = "application/vnd.apache.arrow.stream"


def arrow_body(model: Model, rows: np.ndarray) -> bytes:
    """Return `rows` as an Arrow IPC stream."""
    batch = pa.record_batch([pa.array(column) for column in rows.T], names=model.columns)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def _read_arrow(answer: bytes) -> list[float]:
    table_ = pa.ipc.open_stream(answer).read_all()
    return table_.column(0).to_pylist()


@contextmanager
def with_arrow(model: Model, folder: Path, *, compiled: bool = True) -> Iterator[Served]:
    """tidemill, asked and answering in Arrow."""
    with tidemill(model, folder, compiled=compiled) as served:
        headers = {**served.headers, "Content-Type": _ARROW, "Accept": _ARROW}
        yield replace(served, headers=headers, body=lambda rows: arrow_body(model, np.asarray(rows)), read=_read_arrow)


def _cases(model: Model) -> dict[str, Callable[[Path], AbstractContextManager[Served]]]:
    return {
        OURS: lambda folder: tidemill(model, folder),
        OWN: lambda folder: tidemill(model, folder, compiled=False),
        f"{OURS}, Arrow": lambda folder: with_arrow(model, folder),
        "mlserver": lambda folder: mlserver(model, folder, batches=True),
        "bentoml": lambda folder: bentoml(model, folder, batches=True),
        "mlflow": lambda folder: mlflow(model, folder),
    }


def batches(rounds: int, seconds: float) -> bool:
    """Measure rows a second; return whether all goals were met."""
    failed: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as work:
        model = models.make("trees", Path(work))
        turn = iter(range(10_000))
        starts = _cases(model)

        def case(name: str) -> float:
            with starts[name](Path(work) / f"run-{next(turn)}") as served:
                check_batch(served, model, served.body(model.batch.tolist()))
                # Other orders of the rows: no two bodies in a row are the same.
                sent = [served.body(np.roll(model.batch, 7 * one, axis=0).tolist()) for one in range(_DIFFERENT)]
                wrk.load(served, sent, connections=_CONNECTIONS, seconds=min(2.0, seconds))
                seen = wrk.load(served, sent, connections=_CONNECTIONS, seconds=seconds)
                failed[name] = failed.get(name, 0) + seen.failed
                return seen.rate * len(model.batch)

        figures = interleave({name: lambda name=name: case(name) for name in starts}, rounds)
    table(f"Batches of {len(model.batch):,} rows, {_CONNECTIONS} connections", "rows/s", figures)
    print(f"  requests without a good answer: {failed}")
    json_met = judge(f"JSON: {OURS} / mlserver", ratio_of(figures, OURS, "mlserver"), 5, at_least=True)
    arrow = f"{OURS}, Arrow"
    arrow_met = judge(f"{arrow} / mlserver's JSON", ratio_of(figures, arrow, "mlserver"), 20, at_least=True)
    return json_met and arrow_met and failed[OURS] + failed[arrow] == 0
