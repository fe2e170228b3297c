"""Batches of 10,000 rows in one request, as JSON and as Arrow, against calling the compiled model in process.

The server and the process that calls the model have one core, and the load has the other.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
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
from tests.support.tree import ROOT

_CONNECTIONS = 2
_DIFFERENT = 4
_SERVER_CORE, _LOAD_CORE = 0, 1
IN_PROCESS = "compiled model, in process"
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


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Give this thread, and the processes that it starts, one of the process's cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(before)[core % len(before)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def in_process(model: Model, seconds: float) -> float:
    """Return the rows a second of the compiled model, called with Arrow batches in a process of its own.

    It is the version that the server has prepared, so a server must have run before.
    """
    (prepared,) = model.folder.glob("cache-compiled/*/*/prepared.json")
    batch_file = model.folder / "batch.arrow"
    batch_file.write_bytes(arrow_body(model, model.batch))
    argv = [sys.executable, "-m", __name__, str(prepared.parent), str(batch_file), str(seconds)]
    with pinned(_SERVER_CORE):
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the model failed in process:\n{done.stderr}")
    return float(done.stdout)


def _call_model(folder: Path, batch_file: Path, seconds: float) -> float:
    from tidemill.runtime.serving import Batch
    from tidemill.runtime.serving.engines import load
    from tidemill.runtime.serving.engines.prepared import Prepared
    from tidemill.runtime.serving.versions.preparation import PreparationSettings

    prepared = Prepared.read(folder)
    assert prepared is not None
    engine = load(prepared, folder, PreparationSettings())
    with pa.ipc.open_stream(batch_file.read_bytes()) as reader:
        rows = reader.read_next_batch().cast(prepared.contract.schema)
    batch = Batch(rows.num_rows, rows)
    engine.predict(batch)
    calls, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        engine.predict(batch)
        calls += 1
    return calls * rows.num_rows / elapsed


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
            with pinned(_SERVER_CORE):
                starting = starts[name](Path(work) / f"run-{next(turn)}")
                served = starting.__enter__()
            try:
                check_batch(served, model, served.body(model.batch.tolist()))
                # Other orders of the rows: no two bodies in a row are the same.
                sent = [served.body(np.roll(model.batch, 7 * one, axis=0).tolist()) for one in range(_DIFFERENT)]
                with pinned(_LOAD_CORE):
                    wrk.load(served, sent, connections=_CONNECTIONS, seconds=min(2.0, seconds))
                    seen = wrk.load(served, sent, connections=_CONNECTIONS, seconds=seconds)
                failed[name] = failed.get(name, 0) + seen.failed
                return seen.rate * len(model.batch)
            finally:
                starting.__exit__(None, None, None)

        cases: dict[str, Callable[[], float]] = {name: lambda name=name: case(name) for name in starts}
        cases[IN_PROCESS] = lambda: in_process(model, seconds)
        figures = interleave(cases, rounds)
    table(f"Batches of {len(model.batch):,} rows, {_CONNECTIONS} connections, one core", "rows/s", figures)
    print(f"  requests without a good answer: {failed}")
    arrow = f"{OURS}, Arrow"
    met = [
        judge(f"JSON: {OURS} / {IN_PROCESS}", ratio_of(figures, OURS, IN_PROCESS), 0.5, at_least=True),
        judge(f"{arrow} / {IN_PROCESS}", ratio_of(figures, arrow, IN_PROCESS), 0.85, at_least=True),
    ]
    for ours, peer in ((OURS, "mlserver"), (arrow, "mlserver")):
        print(f"  for information: {ours} / {peer} = {ratio_of(figures, ours, peer):.2f}")
    return all(met) and failed[OURS] + failed[arrow] == 0


if __name__ == "__main__":
    print(_call_model(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])))
