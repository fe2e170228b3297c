"""Serves a model through MLflow in a separate process with the model's own environment.

    with IsolatedEngine(environment, model_folder, contract) as engine:
        outputs = engine.predict(batch)

The process holds no secret of the server, and ends with the server, even if the server is killed. If the process itself
is killed or runs out of memory, the current call fails with 503. The process then restarts, each time after a longer
pause.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from ..contract.field_errors import invalid_field
from ..contract.model_contract import Contract
from ..engines.errors import IsolatedModelError, TemporaryError, UnfitError
from ..engines.mlmodel import PICKLE_SWITCH, MLmodel
from ..engines.outputs import FORMS, Answer, AnswerError, binary_scores
from ..engines.pyfunc import is_hint_error
from ..http.errors import Problem
from ..inference.batch import Batch, Outputs
from .environment import ensure_environment, environment_in_use, is_usable
from .process import ModelProcess, ProcessGoneError

if TYPE_CHECKING:
    from ..engines.prepared import HasPreparationSettings, Output, Prepared

_log = logging.getLogger(__name__)
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 60.0


def load(prepared: Prepared, folder: Path, settings: HasPreparationSettings) -> IsolatedEngine:
    """Return the engine of the version in `folder`, with its process running."""
    environment = Path(str(prepared.engine["environment"]))
    if not is_usable(environment):  # it was removed, or Python has moved
        environment = ensure_environment(
            folder / "model", folder.parent.parent, seconds=settings.isolation.build_seconds
        )
    return IsolatedEngine(
        environment, folder / "model", prepared.contract, output=prepared.output, trust=settings.trust
    )


class IsolatedEngine:
    """The engine of a model in its own process, which runs when the constructor returns.

    Args:
        environment: the environment that `ensure_environment` returned for the model.
        model_folder: of the model, as MLflow saved it.
        contract: the model's inputs.
        output: the kind of its outputs; for `score`, the two columns become a `score`.
        trust: what its files may hold.
        call_seconds: time limit of a call; the process is then killed and restarted.
        load_seconds: time limit for loading the model.
        message_bytes: maximum size of a batch and of an answer.

    Attributes:
        output: as given; preparation sets it after the first answer.

    Raises:
        UnfitError: the model may hold a pickle, and pickles are not trusted; or it does not load in its environment.
    """

    name = "isolated"

    def __init__(
        self,
        environment: Path,
        model_folder: Path,
        contract: Contract,
        *,
        output: Output = "prediction",
        trust: Sequence[str] = (),
        call_seconds: float = 60.0,
        load_seconds: float = 300.0,
        message_bytes: int = 1 << 30,
    ) -> None:
        mlmodel = MLmodel.read(model_folder)
        mlmodel.check(trust)
        self.mergeable = False
        self.output: Output = output
        self._environment = environment
        self._contract = contract
        self._call_seconds = call_seconds
        self._load_seconds = load_seconds
        self._message_bytes = message_bytes
        # scikit-learn needs all columns: an absent one is null, as in this process.
        self._needs_columns = mlmodel.is_sklearn
        self._variables = {PICKLE_SWITCH: mlmodel.pickle_switch(trust)}
        self._load_request = {
            "model": str(model_folder.absolute()),
            "loader": mlmodel.loader,
            "unpickles": "pickle" in trust or "model_code_path" in mlmodel.function,
            "contract": contract.to_json(),
            "message_bytes": message_bytes,
        }
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._restarts = 0
        self._failure = ""
        self._next_start = 0.0
        self._call_number = 0
        with ExitStack() as stack:
            stack.enter_context(environment_in_use(environment))
            self._process: ModelProcess | None = self._start()
            self._resources = stack.pop_all()
        self._supervisor = threading.Thread(target=self._supervise, name="isolated", daemon=True)
        self._supervisor.start()

    def __enter__(self) -> IsolatedEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def state(self) -> dict[str, Any]:
        """Whether the process runs, its id, its number of restarts, and why it last ended."""
        process = self._process
        return {
            "running": process is not None,
            "pid": process.pid if process is not None else None,
            "restarts": self._restarts,
            "trouble": self._failure,
        }

    @property
    def trouble(self) -> str | None:
        """Why it cannot answer now; None if it can."""
        return None if self._process is not None else f"the model's own process is not running ({self._failure})"

    def predict(self, batch: Batch) -> Outputs:
        """Return what the model answers to `batch`.

        Raises:
            AnswerError: the model returned an object that no protocol can represent.
            Problem: 503 if the process is not running or ends during the call; 413 if the batch is too large.
            IsolatedModelError: the model raised an error.
        """
        if self._needs_columns and batch.absent:
            batch = replace(batch, absent=frozenset())
        body = _encode(self._contract.to_record_batch(batch))
        if body.size > self._message_bytes:
            raise Problem(
                413, f"the rows take {body.size} bytes, more than one message to the model's process may have"
            )
        with self._lock:
            process = self._process
            if process is None:
                raise self._unavailable()
            self._call_number += 1
            try:
                request = {"id": self._call_number, **_call_options(batch)}
                header, content = process.call(request, memoryview(body), self._call_seconds)
                if header.get("id") != self._call_number:
                    raise ProcessGoneError("it answered another call")
            except ProcessGoneError as error:
                self._discard(process, str(error))
                raise self._unavailable() from None
        if header.get("kind") == AnswerError.__name__:
            raise AnswerError(str(header["error"]))
        if "error" in header:
            if self._contract.hinted and is_hint_error(str(header["error"])):
                raise invalid_field("inputs", str(header["error"]))
            raise IsolatedModelError(str(header["error"]), str(header.get("kind")))
        try:
            outputs = decode(header, content)
        except ValueError:
            raise IsolatedModelError("the model's process gave an invalid answer") from None
        return binary_scores(outputs) if self.output == "score" else outputs

    def close(self) -> None:
        """Stop the process and all that it started, and wait for their end."""
        self._closing.set()
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.stop()
        self._supervisor.join()
        self._resources.close()

    def _start(self) -> ModelProcess:
        process = ModelProcess(self._environment, self._variables, self._message_bytes)
        try:
            try:
                header, _ = process.call(self._load_request, memoryview(b""), self._load_seconds)
            except ProcessGoneError as error:
                printed = process.last_line()
                # It may have been killed, such as for its memory, or have been too slow.
                raise TemporaryError(f"its own process failed: {error}{f' ({printed})' if printed else ''}") from None
            if "error" in header:
                raise UnfitError(f"its own environment cannot load it: {header.get('kind')}: {header['error']}")
            process.pid = int(header["pid"])
        except BaseException:
            process.stop()
            raise
        return process

    def _discard(self, process: ModelProcess, reason: str) -> None:
        """Stop `process`; the supervisor starts the next one."""
        if self._process is process:
            self._process = None
            self._failure = reason
        process.stop()

    def _unavailable(self) -> Problem:
        wait = max(1, math.ceil(self._next_start - time.monotonic()))
        return Problem(
            503,
            f"the model's own process is not running ({self._failure}); it restarts",
            headers={"Retry-After": str(wait)},
        )

    def _supervise(self) -> None:
        """Restart the process whenever it ends."""
        failures = 0
        while (process := self._process) is not None or not self._closing.is_set():
            if process is not None:
                started = time.monotonic()
                ended = process.wait()
                with self._lock:
                    self._discard(process, ended)
                if self._closing.is_set():
                    return
                failures = 0 if time.monotonic() - started > _LAST_PAUSE else failures + 1
                _log.warning("the model's own process ended", extra={"reason": self._failure})
            # No pause the first time: usually the kernel killed it because another process needed memory.
            pause = 0.0 if failures <= 1 else min(_FIRST_PAUSE * 2 ** (failures - 2), _LAST_PAUSE)
            self._next_start = time.monotonic() + pause
            if self._closing.wait(pause):
                return
            try:
                process = self._start()
            except (UnfitError, OSError) as error:
                failures += 1
                self._failure = str(error)
                _log.error("cannot restart the model's own process", extra={"reason": self._failure})
                continue
            self._restarts += 1
            _log.warning("restarted the model's own process", extra={"restarts": self._restarts})
            with self._lock:
                if self._closing.is_set():
                    process.stop()
                    return
                self._process = process


def _call_options(batch: Batch) -> dict[str, Any]:
    """Return what a call needs in addition to the values, as JSON."""
    options: dict[str, Any] = {}
    if batch.absent:
        options["absent"] = sorted(batch.absent)
    if batch.index is not None:
        options["index"] = list(batch.index)
    if batch.params is not None:
        options["params"] = dict(batch.params)
    if batch.arrays:
        options["arrays"] = True
    if batch.tensors is not None:
        options["tensors"] = {name: [list(array.shape), array.tolist()] for name, array in batch.tensors.items()}
    return options


def _encode(batch: pa.RecordBatch) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def decode(header: Mapping[str, Any], content: memoryview) -> Outputs:
    """Return the outputs in an answer of a model's process.

    Raises:
        ValueError: the answer is invalid.
    """
    try:
        if header["form"] == "array":
            return np.frombuffer(content, "<f8").reshape(header["shape"])
        if header["form"] == "answer":
            return _decode_answer(header, content)
        values = json.loads(bytes(content))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(type(error).__name__) from None
    if header["form"] != "json" or not isinstance(values, list):
        raise ValueError("neither an array nor a list")
    return cast("list[Any]", values)


def _decode_answer(header: Mapping[str, Any], content: memoryview) -> Answer:
    parts: list[Any] = []
    position = 0
    for part in header["parts"]:
        data = content[position : position + part["size"]]
        position += part["size"]
        if "dtype" not in part:
            parts.append(json.loads(bytes(data)))
            continue
        dtype = np.dtype(part["dtype"])
        if dtype.kind not in "biufM":
            raise ValueError("an array of another kind")
        parts.append(np.frombuffer(data, dtype).reshape(part["shape"]))
    form, names, rows = header["answer"], header["names"], header["rows"]
    if form not in FORMS or not all(isinstance(name, str) for name in names):
        raise ValueError("an unknown form")
    if (form in ("frame", "mapping") and len(names) != len(parts)) or (form not in ("frame", "mapping") and not parts):
        raise ValueError("names without parts")
    if rows is not None and (type(rows) is not int or not all(_has_rows(form, part, rows) for part in parts)):
        raise ValueError("parts of other lengths than the rows")
    return Answer(form, names, parts, rows)


def _has_rows(form: str, part: Any, rows: int) -> bool:
    if form == "value" and not isinstance(part, np.ndarray):
        return rows == 1
    return (isinstance(part, list) or (isinstance(part, np.ndarray) and part.ndim > 0)) and len(part) == rows
