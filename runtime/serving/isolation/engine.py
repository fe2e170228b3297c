"""The model itself through MLflow, in a process and an environment of its own.

    with IsolatedEngine(environment, model_folder, contract) as engine:
        outputs = engine.predict(batch)

The process holds no secret of the server and ends with it, also when that is killed. When it ends by itself, killed or
out of memory, the call under way fails with 503, and it is started again, each time after a longer pause.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from ..contract.model_contract import Contract
from ..engines.mlmodel import Described
from ..http.errors import Problem
from ..inference.batch import Batch, Outputs
from ..versions.model import UnfitError
from .environment import ensure, is_usable, using
from .process import GoneError, ModelProcess

if TYPE_CHECKING:
    from ..engines.prepared import Output, Prepared, Wanted

__all__ = ["IsolatedEngine", "IsolatedModelError", "decode", "load"]

_log = logging.getLogger(__name__)
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 60.0


class IsolatedModelError(Exception):
    """The model raised; the message says what."""


def load(prepared: Prepared, folder: Path, settings: Wanted) -> IsolatedEngine:
    """Return the engine of the version in `folder`, running."""
    environment = Path(str(prepared.engine["environment"]))
    if not is_usable(environment):  # somebody has tidied up, or Python has moved
        environment = ensure(folder / "model", folder.parent.parent, seconds=settings.isolation.build_seconds)
    engine = IsolatedEngine(environment, folder / "model", prepared.contract, output=prepared.output)
    engine.mergeable = bool(prepared.engine["mergeable"])
    return engine


class IsolatedEngine:
    """Answers by a process of its own; it is up when the constructor returns.

    Args:
        environment: what `environment.ensure` gave for the model.
        model_folder: the model, as MLflow saved it.
        contract: its inputs.
        output: what it gives; of a `score` the second column is taken.
        call_seconds: time one call may take; then the process is killed and started again.
        load_seconds: time the process has to load the model.
        message_bytes: size of one batch, and of one answer.

    Attributes:
        output: as given; a preparer which does not know it yet sets it after the first answer.

    Raises:
        UnfitError: the model may hold a pickle, or is not loaded there.
    """

    name = "isolated"

    def __init__(
        self,
        environment: Path,
        model_folder: Path,
        contract: Contract,
        *,
        output: Output = "prediction",
        call_seconds: float = 60.0,
        load_seconds: float = 300.0,
        message_bytes: int = 1 << 30,
    ) -> None:
        described = Described.read(model_folder)
        described.check()
        self.mergeable = contract.mergeable
        self.output: Output = output
        self._environment = environment
        self._contract = contract
        self._call_seconds = call_seconds
        self._load_seconds = load_seconds
        self._message_bytes = message_bytes
        skops = described.flavor.get("serialization_format") == "skops"
        # MLflow takes skops for a pickle: what it holds was checked above.
        self._variables = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true" if skops else "false"}
        self._told = {
            "model": str(model_folder.absolute()),
            "loader": described.loader,
            "unpickles": "model_code_path" in described.function,
            "contract": contract.to_json(),
            "message_bytes": message_bytes,
        }
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._restarts = 0
        self._trouble = ""
        self._next_start = 0.0
        self._number = 0
        with ExitStack() as stack:
            stack.enter_context(using(environment))
            self._process: ModelProcess | None = self._start()
            self._held = stack.pop_all()
        self._keeper = threading.Thread(target=self._keep, name="isolated", daemon=True)
        self._keeper.start()

    def __enter__(self) -> IsolatedEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def state(self) -> dict[str, Any]:
        """Whether the process runs, its id, how often it was started again, and why it last ended."""
        process = self._process
        return {
            "running": process is not None,
            "pid": process.pid if process is not None else None,
            "restarts": self._restarts,
            "trouble": self._trouble,
        }

    @property
    def trouble(self) -> str | None:
        """Why it cannot answer now, None while it can."""
        return None if self._process is not None else f"the model's own process is not there ({self._trouble})"

    def predict(self, batch: Batch) -> Outputs:
        """Return one value a row.

        Raises:
            Problem: 503 where the process is not there or ends in the call, 413 for a batch which is too large.
            IsolatedModelError: the model raised.
        """
        body = _encode(self._contract.to_record_batch(batch))
        if body.size > self._message_bytes:
            raise Problem(413, f"the rows take {body.size} bytes, more than the model's process is sent at once")
        with self._lock:
            process = self._process
            if process is None:
                raise self._down()
            self._number += 1
            try:
                header, content = process.ask({"id": self._number}, memoryview(body), self._call_seconds)
                if header.get("id") != self._number:
                    raise GoneError("it answered something else")
            except GoneError as error:
                self._lost(process, str(error))
                raise self._down() from None
        if "error" in header:
            raise IsolatedModelError(f"{header.get('kind')}: {header['error']}")
        try:
            outputs = decode(header, content)
        except ValueError:
            raise IsolatedModelError("the model's process gave an answer which is none") from None
        if self.output == "score" and not isinstance(outputs, list) and outputs.ndim == 2 and outputs.shape[1] == 2:
            return outputs[:, 1]
        return outputs

    def close(self) -> None:
        """End the process; nothing of it is left when this returns."""
        self._closing.set()
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.end()
        self._keeper.join()
        self._held.close()

    def _start(self) -> ModelProcess:
        process = ModelProcess(self._environment, self._variables, self._message_bytes)
        try:
            try:
                header, _ = process.ask(self._told, memoryview(b""), self._load_seconds)
            except GoneError as error:
                said = process.said()
                raise UnfitError(f"its own process gave up: {error}{f' ({said})' if said else ''}") from None
            if "error" in header:
                raise UnfitError(f"its own environment cannot load it: {header.get('kind')}: {header['error']}")
            process.pid = int(header["pid"])
        except BaseException:
            process.end()
            raise
        return process

    def _lost(self, process: ModelProcess, why: str) -> None:
        """Give `process` up; the keeper starts the next."""
        if self._process is process:
            self._process = None
            self._trouble = why
        process.end()

    def _down(self) -> Problem:
        wait = max(1, math.ceil(self._next_start - time.monotonic()))
        return Problem(
            503,
            f"the model's own process is not there ({self._trouble}); it is started again",
            headers={"Retry-After": str(wait)},
        )

    def _keep(self) -> None:
        """Start the process again whenever it has ended."""
        failures = 0
        while (process := self._process) is not None or not self._closing.is_set():
            if process is not None:
                started = time.monotonic()
                ended = process.wait()
                with self._lock:
                    self._lost(process, ended)
                if self._closing.is_set():
                    return
                failures = 0 if time.monotonic() - started > _LAST_PAUSE else failures + 1
                _log.warning("the model's own process ended", extra={"reason": self._trouble})
            # The first time at once: most often it was killed by somebody else's need of memory.
            pause = 0.0 if failures <= 1 else min(_FIRST_PAUSE * 2 ** (failures - 2), _LAST_PAUSE)
            self._next_start = time.monotonic() + pause
            if self._closing.wait(pause):
                return
            try:
                process = self._start()
            except (UnfitError, OSError) as error:
                failures += 1
                self._trouble = str(error)
                _log.error("the model's own process cannot be started", extra={"reason": self._trouble})
                continue
            self._restarts += 1
            _log.warning("the model's own process runs again", extra={"restarts": self._restarts})
            with self._lock:
                if self._closing.is_set():
                    process.end()
                    return
                self._process = process


def _encode(batch: pa.RecordBatch) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def decode(header: Mapping[str, Any], content: memoryview) -> Outputs:
    """Return the outputs which a model's process has said.

    Raises:
        ValueError: it has said none.
    """
    try:
        if header["form"] == "array":
            return np.frombuffer(content, "<f8").reshape(header["shape"])
        values = json.loads(bytes(content))
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(type(error).__name__) from None
    if header["form"] != "json" or not isinstance(values, list):
        raise ValueError("neither an array nor a list")
    return cast("list[Any]", values)
