"""Prepares a version for serving: chooses its engine and compiles it, once for all workers, in a child process.

The command is `python -m tidemill.runtime.serving.versions.preparation FOLDER`. FOLDER is the version's cache folder;
the results are stored there. Standard input has the server settings `compile` and `isolation` as JSON. A separate
process is used because loading a model takes seconds and hundreds of megabytes, and runs its author's code. On failure,
the last line of standard error is the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from ...common.errors import TidemillError
from ...common.target import METADATA, Target
from ..codecs.tensors import output_tensors
from ..contract.model_contract import Contract
from ..engines.answer_kind import answer_kind, known_by_row
from ..engines.errors import TemporaryError, UnfitError
from ..engines.outputs import AnswerError, as_request
from ..engines.prepared import (
    COMPILED,
    HasPreparationSettings,
    Independence,
    Output,
    Prepared,
    fingerprint,
    output_type,
    write_sample,
)
from ..inference.batch import Batch, Engine, Outputs
from ..settings import CompileSettings, IsolationSettings, Trusted
from .child_process import run_child
from .model import VersionInfo, to_json_value

if TYPE_CHECKING:
    from ..engines.engine_selection import EngineChoice, SelectionTask
    from ..engines.mlmodel import MLmodel
    from ..engines.sample_rows import Row

_SECONDS = 900.0
_WORK = ".compiled-"
_EXAMPLE_ROWS = 5
_WARM_ROWS = 64
_GENERATED_ROWS = 50
_MERGED_ROWS = 16
_TRIAL = ".invented-rows"
_TRIAL_SECONDS = 60.0
_SIGNATURE_TYPES = {
    "boolean": pa.bool_(),
    "double": pa.float64(),
    "float": pa.float64(),
    "integer": pa.int64(),
    "long": pa.int64(),
    "string": pa.string(),
}
_MERGED_DIFFERENCE = 1e-6
_ADD_SIGNATURE = (
    "log it with `log_model(..., signature=mlflow.models.infer_signature(X, model.predict(X)))`, or with tidemill's "
    "`run.log_model(model, features=X)`"
)


@dataclass(frozen=True)
class PreparationSettings:
    """Settings of the preparation, without the other settings of a server."""

    compile: CompileSettings = field(default_factory=CompileSettings)
    isolation: IsolationSettings = field(default_factory=IsolationSettings)
    trust: Sequence[Trusted] = ()


def ensure_prepared(folder: Path, info: VersionInfo, settings: HasPreparationSettings) -> None:
    """Prepare the version in `folder` unless that was done for the same settings and libraries.

    One process prepares, others wait for it.

    Raises:
        UnfitError: the version cannot serve; the message says why.
    """
    key = fingerprint(folder, settings)
    if _is_prepared(folder, key):
        return
    seconds = _SECONDS + settings.isolation.build_seconds
    lock = FileLock(folder.with_name(f".{folder.name}.prepare.lock"), timeout=seconds)
    try:
        with lock:
            if not _is_prepared(folder, key):
                _run_twice(folder, info, settings, seconds)
    except Timeout:
        raise TemporaryError(
            f"version {info.version}: another process has been preparing it for {seconds:.0f} s"
        ) from None
    if not _is_prepared(folder, key):
        raise UnfitError(f"version {info.version}: its preparation stored no result")


def _is_prepared(folder: Path, key: dict[str, Any]) -> bool:
    prepared = Prepared.read(folder)
    return prepared is not None and prepared.made_for == key


def _run_twice(folder: Path, info: VersionInfo, settings: HasPreparationSettings, seconds: float) -> None:
    """Prepare the version; once more without invented rows, if the process ended in a call with them."""
    marker = folder / _TRIAL
    marker.unlink(missing_ok=True)
    try:
        _run(folder, info, settings, seconds)
    except TemporaryError:
        if not marker.exists():
            raise
        _run(folder, info, settings, seconds)
    finally:
        marker.unlink(missing_ok=True)


def _run(folder: Path, info: VersionInfo, settings: HasPreparationSettings, seconds: float) -> None:
    request = {
        "compile": settings.compile.model_dump(mode="json"),
        "isolation": settings.isolation.model_dump(mode="json"),
        "trust": list(settings.trust),
    }
    run_child(__name__, [str(folder.absolute())], request, seconds=seconds, what=f"version {info.version}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="tidemill.runtime.serving.versions.preparation",
        description="Choose the engine of a model version, and compile it.",
    )
    parser.add_argument("folder", type=Path, help="folder of the version in the cache")
    folder: Path = parser.parse_args(argv).folder
    request = json.load(sys.stdin)
    settings = PreparationSettings(
        CompileSettings(**request["compile"]), IsolationSettings(**request["isolation"]), request["trust"]
    )
    restrict_process(folder)
    try:
        prepare(folder.resolve(), settings)
    except TidemillError as error:
        sys.stderr.write(f"\n{_one_line(str(error))}\n")
        return 1 if isinstance(error, UnfitError) and not isinstance(error, TemporaryError) else 3
    except MemoryError:
        sys.stderr.write("\nnot enough memory to load the model\n")
        return 3
    except Exception as error:  # noqa: BLE001 - a broken model may raise anything
        sys.stderr.write(f"\nthe model cannot be loaded or called ({type(error).__name__}: {_one_line(str(error))})\n")
        # A model that reads from a network may work later.
        return 3 if isinstance(error, OSError) and not isinstance(error, FileNotFoundError) else 1
    return 0


def _one_line(text: str) -> str:
    return " ".join(text.split())[:1000]


def _is_trial_late(marker: Path) -> bool:
    """Return whether calls with invented rows take too long; a model may loop as often as a value says."""
    try:
        return time.time() - marker.stat().st_mtime > _TRIAL_SECONDS
    except OSError:
        return False


def restrict_process(folder: Path | None = None) -> None:
    """Remove credentials from the environment, and limit the model to one thread.

    The process exits when the parent exits, and when calls with invented rows take too long.

    Args:
        folder: of the version that is prepared, if one is.
    """
    for name in list(os.environ):
        if name.startswith(("MLFLOW_TRACKING_", "AWS_", "DATABRICKS_")):
            del os.environ[name]
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
    warnings.simplefilter("ignore")
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent and not (folder is not None and _is_trial_late(folder / _TRIAL)):
            time.sleep(0.5)
        # If the process leads its group, kill the compiler too.
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(3)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def prepare(folder: Path, settings: HasPreparationSettings) -> None:
    """Prepare the version in `folder`, in this process.

    Raises:
        UnfitError: the version cannot serve; the message says why. Other exceptions of a broken model pass through.
    """
    from ..engines.mlmodel import MLmodel

    key = fingerprint(folder, settings)
    mlmodel = MLmodel.read(folder / "model")
    mlmodel.check(settings.trust)
    contract = read_contract(mlmodel)
    for leftover in folder.glob(f"{_WORK}*"):  # of a killed process
        shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=_WORK, dir=folder))
    try:
        prepared = _build(folder, mlmodel, contract, settings, key, work)
        (folder / "prepared.json").unlink(missing_ok=True)
        shutil.rmtree(folder / COMPILED, ignore_errors=True)
        work.rename(folder / COMPILED)
        prepared.write(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def read_contract(mlmodel: MLmodel) -> Contract:
    """Return the inputs of the model.

    Raises:
        UnfitError: it has no signature, or one that cannot be served.
    """
    schema = mlmodel.inputs()
    try:
        return Contract.of(schema, mlmodel.params(), hinted=mlmodel.hinted)
    except ValueError as error:
        # A signature with a type that we do not support is not fixed by logging the model with one.
        hint = None if schema is not None and schema.inputs else _ADD_SIGNATURE
        raise UnfitError(str(error), hint=hint) from None


@dataclass
class _Original:
    """The original model, not compiled.

    Attributes:
        spec: how to load it again.
        engine: calls it with data frames.
        contract: its inputs.
        model: the fitted scikit-learn model, if it is one.
        note: for the status page.
    """

    spec: dict[str, Any]
    engine: Any
    contract: Contract
    model: Any = None
    note: str = ""


def load_original(
    folder: Path,
    mlmodel: MLmodel,
    contract: Contract,
    settings: HasPreparationSettings,
    *,
    cache: Path | None = None,
) -> _Original:
    """Load the model itself, in its own environment if it requires one.

    Args:
        folder: of the version.
        mlmodel: in this folder.
        contract: its inputs.
        settings: of the server.
        cache: for its environment; by default the one that has `folder`.

    Raises:
        UnfitError: it cannot be loaded. Other exceptions of a broken model pass through.
    """
    from ..isolation.environment import ensure_environment
    from ..isolation.requirements import InvalidRequirementsError, UnbuildableError, unmet_requirements

    try:
        reasons = unmet_requirements(mlmodel.folder)
    except InvalidRequirementsError as error:
        raise UnfitError(str(error)) from None
    if reasons:
        why = "; ".join(reasons[:5])
        if settings.isolation.mode == "refuse":
            raise UnfitError(
                f"the model requires other package versions than the server has ({why})", hint="allow isolation"
            )
        from ..isolation.engine import IsolatedEngine

        try:
            environment = ensure_environment(
                mlmodel.folder, cache or folder.parent.parent, seconds=settings.isolation.build_seconds
            )
        except InvalidRequirementsError as error:
            raise UnfitError(str(error)) from None
        except UnbuildableError as error:
            # The package index may answer later.
            raise TemporaryError(str(error)) from None
        engine = IsolatedEngine(environment, mlmodel.folder, contract, trust=settings.trust)
        spec = {"name": "isolated", "environment": str(environment)}
        return _Original(spec, engine, contract, note=f"isolated: it requires {why}")
    if mlmodel.is_sklearn:
        from ..engines import scikit

        model = scikit.open_model(mlmodel, settings.trust)
        contract = replace(contract, missing_text=scikit.missing_text(model))
        engine = scikit.ScikitEngine(model, mlmodel.method, contract)
        return _Original({"name": "sklearn"}, engine, contract, model)
    from ..engines import pyfunc

    engine = pyfunc.PyfuncEngine(pyfunc.open_model(mlmodel, settings.trust), contract)
    return _Original({"name": "pyfunc"}, engine, contract)


def _build(
    folder: Path,
    mlmodel: MLmodel,
    contract: Contract,
    settings: HasPreparationSettings,
    key: dict[str, Any],
    work: Path,
) -> Prepared:
    from ..engines import sample_rows
    from ..engines.engine_selection import SelectionTask
    from ..engines.row_independence import declared_independent, why_unknown

    original = load_original(folder, mlmodel, contract, settings)
    contract = original.contract
    try:
        rows = sample_rows.model_rows(mlmodel, contract, folder)
        has_example = bool(rows)
        rows = rows[: contract.fixed_rows]
        shown = rows[:_EXAMPLE_ROWS]
        if has_example:
            outputs = _predict_example(original.engine, rows)
        else:
            invented = sample_rows.random_rows(contract, contract.fixed_rows or _GENERATED_ROWS)
            with _trial(folder) as allowed:
                rows, outputs = _predict_invented(original.engine, invented) if allowed else ([], None)
            shown = (rows or invented)[:1]
        output = output_name(mlmodel, original.model, outputs)
        if output == "score":
            original.engine.output = output
            outputs = original.engine.predict(Batch(len(rows), rows)) if rows else None
        by_request, form = answer_kind(original.engine, rows, outputs) if outputs is not None else (False, "")
        independence = Independence(
            why_unknown(mlmodel, original.model) or "",
            declared_independent(mlmodel),
            _contradiction(original.engine, rows, outputs)
            if contract.mergeable and not by_request and outputs is not None
            else "",
        )
        if outputs is None:
            by_request = not known_by_row(mlmodel, independence)
        spec, note = original.spec, original.note
        if (pickled := mlmodel.pickle_reason()) is not None:
            note = _join_notes(note, f"pickle is trusted: {pickled}")
        if original.spec["name"] != "isolated":
            task = SelectionTask(
                contract, original.engine, rows, settings.compile.engines, settings.compile.tolerance, work
            )
            choice = _choose_engine(mlmodel, original, task)
            spec, note = choice.engine, _join_notes(choice.note, note)
    finally:
        original.engine.close()
    warm = rows[: contract.fixed_rows or _WARM_ROWS]
    empty = pa.RecordBatch.from_pylist([], contract.schema)
    write_sample(work, contract.to_record_batch(Batch(len(warm), warm)) if warm else empty)
    example = [dict(zip(contract.names, map(to_json_value, row), strict=True)) for row in shown]
    if by_request and outputs is not None:
        outputs = as_request(outputs)
    return Prepared(
        key,
        contract,
        output,
        _output_type(mlmodel, output, outputs),
        spec,
        note,
        example,
        _target(mlmodel, original.model),
        by_request,
        form,
        output_tensors(outputs, output) if outputs is not None else [],
        independence,
        has_example,
        outputs is not None,
    )


def _target(mlmodel: MLmodel, model: Any) -> Target:
    """Return the contract of the labels; a version that was logged without one has the classes of its estimator."""
    recorded = Target.from_json(mlmodel.metadata.get(METADATA))
    return recorded if recorded.known else Target.of(classes=getattr(model, "classes_", None))


def _choose_engine(mlmodel: MLmodel, original: _Original, task: SelectionTask) -> EngineChoice:
    from ..engines.boosters import BOOSTERS
    from ..engines.engine_selection import EngineChoice, select_booster_engine, select_engine

    compiles = original.model is not None or mlmodel.loader in BOOSTERS
    if compiles and not task.rows:
        note = "not compiled: the model has no example, and refuses the rows that tidemill made up for a comparison"
        return EngineChoice(task.original_spec, note)
    try:
        if original.model is not None:
            return select_engine(original.model, mlmodel.method, task)
        if mlmodel.loader in BOOSTERS:
            return select_booster_engine(mlmodel, task)
    except Exception as error:  # noqa: BLE001 - the model itself serves
        note = f"not compiled: {type(error).__name__}: {_one_line(str(error))[:200]}"
        return EngineChoice(task.original_spec, note)
    return EngineChoice(task.original_spec, f"not compiled: no engine supports models of {mlmodel.loader}")


def _join_notes(first: str, second: str) -> str:
    return "; ".join(part for part in (first, second) if part)


@contextmanager
def _trial(folder: Path) -> Generator[bool]:
    """Return a context for calls with invented rows; its value is whether they may be made.

    A call may crash this process, or not end. Then a marker is left, and the next attempt makes no such call.
    """
    marker = folder / _TRIAL
    if marker.exists():
        yield False
        return
    marker.touch()
    yield True
    marker.unlink()


def _predict_example(engine: Engine, rows: list[Row]) -> Outputs:
    """Return the outputs for the rows that came with the model.

    Raises:
        UnfitError: the model fails for them.
    """
    try:
        return engine.predict(Batch(len(rows), rows))
    except TidemillError:
        raise
    except AnswerError as error:
        raise UnfitError(str(error)) from None
    except Exception as error:  # noqa: BLE001 - a broken model may raise anything
        raise UnfitError(f"it fails on its own example ({type(error).__name__}: {_one_line(str(error))})") from None


def _predict_invented(engine: Engine, rows: list[Row]) -> tuple[list[Row], Outputs | None]:
    """Return the rows that the model accepts, all or one, and its outputs; none if it refuses them all.

    A model may refuse rows that tidemill invents: a price below zero, or an unknown currency.
    """
    for part in (rows, *([row] for row in rows)):
        try:
            return list(part), engine.predict(Batch(len(part), list(part)))
        except (Exception, SystemExit):  # noqa: BLE001, S112 - any error is a refusal
            continue
    return [], None


def output_name(mlmodel: MLmodel, model: Any, outputs: Outputs | None) -> Output:
    """Return the name of the output: of the classes of the estimator, else of the signature, else of its answers."""
    if mlmodel.method != "predict_proba":
        return "prediction"
    classes = _class_count(mlmodel, model, outputs)
    if classes is None:
        return "prediction"
    return "score" if classes == 2 else "scores"


def _class_count(mlmodel: MLmodel, model: Any, outputs: Outputs | None) -> int | None:
    """Return the number of probabilities in a row of the answer of `predict_proba`; None if it is unknown."""
    known = getattr(model, "classes_", None)
    if isinstance(known, np.ndarray):
        return len(known) if known.ndim == 1 else None
    if isinstance(outputs, np.ndarray):
        return outputs.shape[1] if outputs.ndim == 2 else None
    if outputs is None and len(specs := mlmodel.outputs()) == 1:
        shape = (specs[0].get("tensor-spec") or {}).get("shape") or ()
        return shape[1] if len(shape) == 2 and shape[1] > 0 else None
    return None


def _output_type(mlmodel: MLmodel, output: Output, outputs: Outputs | None) -> pa.StructType:
    """Return the type of the outputs: of known answers, else as in the signature, else JSON text, which always fits."""
    if outputs is not None or output != "prediction":
        return output_type(output, outputs)
    specs = mlmodel.outputs()
    kind = _SIGNATURE_TYPES.get(str(specs[0].get("type"))) if len(specs) == 1 else None
    return output_type(output, None) if kind is None else pa.struct([(output, kind)])


def _contradiction(engine: Engine, rows: list[Row], outputs: Outputs) -> str:
    """Return how the answers for single rows show that rows depend on each other; empty if they do not show it.

    They can show that rows are dependent, but never that they are independent.
    """
    from ..engines.engine_selection import largest_difference

    for index, row in enumerate(rows[:_MERGED_ROWS]):
        try:
            alone = engine.predict(Batch(1, [row]))
        except Exception as error:  # noqa: BLE001 - a model may raise anything
            return f"it fails on a single row of its sample ({type(error).__name__})"
        if largest_difference(alone, outputs[index : index + 1]) > _MERGED_DIFFERENCE:
            return "its output for a row of its sample depends on the other rows"
    return ""


if __name__ == "__main__":
    sys.exit(main())
