"""`python -m tidemill.runtime.serving.versions.preparation FOLDER`: find out how a version is served, and compile it.

FOLDER is that of one version in the cache. How it is wanted comes as JSON on standard input: `compile` and `isolation`
as in the settings of the server. Loading a model takes seconds, hundreds of megabytes and whatever its author thought
of, so it is done here, once for all workers; what is found is kept in FOLDER. The last line of standard error says
what went wrong.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ...common.errors import TidemillError
from ..engines.errors import UnfitError
from ..engines.prepared import COMPILED, Output, PreparationSettings, Prepared, fingerprint, output_type, write_sample
from ..settings import CompileSettings, IsolationSettings
from .model import VersionInfo, as_json

if TYPE_CHECKING:
    from ..contract.model_contract import Contract
    from ..engines.engine_selection import EngineChoice, SelectionTask
    from ..engines.mlmodel import MLmodel
    from ..engines.sample_rows import Row
    from ..inference.batch import Engine, Outputs

__all__ = ["Preparation", "ensure", "main", "prepare"]

_SECONDS = 900.0
_WORK = ".compiled-"
_EXAMPLE_ROWS = 5
_WARM_ROWS = 64
_MADE_UP_ROWS = 50
_MERGED_ROWS = 16
_MERGED_DIFFERENCE = 1e-6


@dataclass(frozen=True)
class Preparation:
    """How a version is to be prepared, for who has no settings of a server."""

    compile: CompileSettings = field(default_factory=CompileSettings)
    isolation: IsolationSettings = field(default_factory=IsolationSettings)


def ensure(folder: Path, info: VersionInfo, settings: PreparationSettings) -> None:
    """Prepare the version in `folder`, unless it was for these settings and libraries; others wait for the one.

    Raises:
        UnfitError: it cannot be served; the message says why.
    """
    wanted = fingerprint(folder, settings)
    if _is_made_for(folder, wanted):
        return
    seconds = _SECONDS + settings.isolation.build_seconds
    lock = FileLock(folder.with_name(f".{folder.name}.prepare.lock"), timeout=seconds)
    try:
        with lock:
            if not _is_made_for(folder, wanted):
                _run(folder, info, settings, seconds)
    except Timeout:
        raise UnfitError(f"version {info.version}: another process prepares it for {seconds:.0f} s") from None
    if not _is_made_for(folder, wanted):
        raise UnfitError(f"version {info.version}: its preparation left nothing")


def _is_made_for(folder: Path, wanted: dict[str, Any]) -> bool:
    prepared = Prepared.read(folder)
    return prepared is not None and prepared.made_for == wanted


def _run(folder: Path, info: VersionInfo, settings: PreparationSettings, seconds: float) -> None:
    from .child_process import run_child

    order = {
        "compile": settings.compile.model_dump(mode="json"),
        "isolation": settings.isolation.model_dump(mode="json"),
    }
    run_child(__name__, [str(folder.absolute())], order, seconds=seconds, what=f"version {info.version}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="tidemill.runtime.serving.versions.preparation", description="Prepare a model version."
    )
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args(argv).folder
    import json

    order = json.load(sys.stdin)
    settings = Preparation(CompileSettings(**order["compile"]), IsolationSettings(**order["isolation"]))
    _keep_to_itself()
    try:
        prepare(folder.resolve(), settings)
    except TidemillError as error:
        sys.stderr.write(f"\n{_one_line(str(error))}\n")
        return error.exit_code
    except MemoryError:
        sys.stderr.write("\nthere is not enough memory to load it\n")
        return 3
    except Exception as error:  # noqa: BLE001 - a broken model may raise anything
        sys.stderr.write(f"\nit cannot be loaded or asked ({type(error).__name__}: {_one_line(str(error))})\n")
        return 3
    return 0


def _one_line(text: str) -> str:
    return " ".join(text.split())[:1000]


def _keep_to_itself() -> None:
    """Give the model nothing which opens a door, one thread, and no life beyond that of the server."""
    for name in list(os.environ):
        if name.startswith(("MLFLOW_TRACKING_", "AWS_", "DATABRICKS_")):
            del os.environ[name]
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
    warnings.simplefilter("ignore")
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        # The compiler, too, where the process leads a group of its own.
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(3)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def prepare(folder: Path, settings: PreparationSettings) -> None:
    """Prepare the version in `folder`, in this process.

    Raises:
        UnfitError: it cannot be served; the message says why. What else a broken model raises passes through.
    """
    from ..engines.mlmodel import MLmodel

    wanted = fingerprint(folder, settings)
    mlmodel = MLmodel.read(folder / "model")
    mlmodel.check()
    contract = _contract(mlmodel)
    for left in folder.glob(f"{_WORK}*"):
        # Of one which was killed.
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=_WORK, dir=folder))
    try:
        prepared = _found(folder, mlmodel, contract, settings, wanted, work)
        (folder / "prepared.json").unlink(missing_ok=True)
        shutil.rmtree(folder / COMPILED, ignore_errors=True)
        work.rename(folder / COMPILED)
        prepared.write(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _contract(mlmodel: MLmodel) -> Contract:
    from ..contract.model_contract import Contract

    try:
        return Contract.of(mlmodel.inputs())
    except ValueError as error:
        raise UnfitError(str(error), hint="log it with a signature") from None


@dataclass
class _Opened:
    """The model itself.

    Attributes:
        spec: what it is loaded from again.
        engine: asked with data frames.
        model: the fitted one, where it is scikit-learn's.
        contract: what it takes.
        note: what is to be said of it.
    """

    spec: dict[str, Any]
    engine: Any
    contract: Contract
    model: Any = None
    note: str = ""


def _open(folder: Path, mlmodel: MLmodel, contract: Contract, settings: PreparationSettings) -> _Opened:
    from ..isolation.environment import ensure_environment, unmet_requirements

    reasons = unmet_requirements(mlmodel.folder)
    if reasons:
        why = "; ".join(reasons[:5])
        if settings.isolation.mode == "refuse":
            raise UnfitError(f"the model needs other versions than the server has ({why})", hint="allow isolation")
        from ..isolation.engine import IsolatedEngine

        place = ensure_environment(mlmodel.folder, folder.parent.parent, seconds=settings.isolation.build_seconds)
        engine = IsolatedEngine(place, mlmodel.folder, contract)
        spec = {"name": "isolated", "environment": str(place)}
        return _Opened(spec, engine, contract, note=f"isolated: it needs {why}")
    if mlmodel.is_sklearn:
        from ..engines import scikit

        model = scikit.open_model(mlmodel)
        contract = replace(contract, missing_text=scikit.missing_text(model))
        engine = scikit.ScikitEngine(model, mlmodel.method, contract)
        return _Opened({"name": "sklearn"}, engine, contract, model)
    from ..engines import pyfunc

    engine = pyfunc.PyfuncEngine(pyfunc.open_model(mlmodel), contract)
    return _Opened({"name": "pyfunc"}, engine, contract)


def _found(
    folder: Path,
    mlmodel: MLmodel,
    contract: Contract,
    settings: PreparationSettings,
    wanted: dict[str, Any],
    work: Path,
) -> Prepared:
    from ..engines import sample_rows
    from ..engines.engine_selection import SelectionTask
    from ..inference.batch import Batch, is_finite

    opened = _open(folder, mlmodel, contract, settings)
    contract = opened.contract
    try:
        rows = sample_rows.model_rows(mlmodel, contract, folder)
        known = bool(rows)
        if not known:
            rows = sample_rows.random_rows(contract, _MADE_UP_ROWS)
        rows, answers = _answered(opened.engine, rows, known)
        output = _output(mlmodel, answers)
        if output == "score":
            opened.engine.output = output
            answers = opened.engine.predict(Batch(len(rows), rows))
        if not is_finite(answers):
            raise UnfitError("the model gives a value which is not finite for its own example")
        note = opened.note
        spec = {**opened.spec, "mergeable": False}
        if not contract.mergeable:
            note = _and(note, "requests are answered one by one: its signature says how many rows it takes")
        elif mlmodel.signature.get("params"):
            note = _and(note, "requests are answered one by one: its signature has parameters")
        elif (why := _not_merged(opened.engine, rows, answers)) is not None:
            note = _and(note, f"requests are answered one by one: {why}")
        else:
            spec["mergeable"] = True
        opened.engine.mergeable = spec["mergeable"]
        if opened.spec["name"] != "isolated":
            wish = settings.compile
            task = SelectionTask(contract, opened.engine, rows, wish.engines, wish.tolerance, work)
            choice = _choice(mlmodel, opened, task)
            spec, note = choice.engine, _and(choice.note, note)
    finally:
        opened.engine.close()
    warm = rows[:_WARM_ROWS]
    write_sample(work, contract.to_record_batch(Batch(len(warm), warm)))
    example = [
        dict(zip(contract.names, map(as_json, row), strict=True))
        for row in (rows[:_EXAMPLE_ROWS] if known else rows[:1])
    ]
    return Prepared(wanted, contract, output, output_type(output, answers), spec, note, example)


def _choice(mlmodel: MLmodel, opened: _Opened, task: SelectionTask) -> EngineChoice:
    from ..engines.boosters import BOOSTERS
    from ..engines.engine_selection import EngineChoice, select_booster_engine, select_engine

    if opened.model is not None:
        return select_engine(opened.model, mlmodel.method, task)
    if mlmodel.loader in BOOSTERS:
        return select_booster_engine(mlmodel, task)
    return EngineChoice(task.original_spec, f"not compiled: there is no engine for models of {mlmodel.loader}")


def _and(first: str, second: str) -> str:
    return "; ".join(part for part in (first, second) if part)


def _answered(engine: Engine, rows: list[Row], known: bool) -> tuple[list[Row], Outputs]:
    """Return the rows which the model answers, and its answers."""
    from ..inference.batch import Batch

    try:
        return rows, engine.predict(Batch(len(rows), rows))
    except TidemillError:
        raise
    except Exception as error:  # noqa: BLE001 - a broken model may raise anything
        if known:
            raise UnfitError(f"it fails on its own example ({type(error).__name__}: {_one_line(str(error))})") from None
        reason = f"{type(error).__name__}: {_one_line(str(error))}"
    for row in rows:
        # Made-up rows may be nonsense to it; it needs to take but one.
        try:
            return [row], engine.predict(Batch(1, [row]))
        except Exception:  # noqa: BLE001, S112 - as above
            continue
    raise UnfitError(f"it takes no row which was made up for it ({reason})", hint="log it with an input example")


def _output(mlmodel: MLmodel, answers: Outputs) -> Output:
    import numpy as np

    if mlmodel.method != "predict_proba" or not isinstance(answers, np.ndarray) or answers.ndim != 2:
        return "prediction"
    return "score" if answers.shape[1] == 2 else "scores"


def _not_merged(engine: Engine, rows: list[Row], answers: Outputs) -> str | None:
    """Return why rows of several requests must not go into one call, None where they may."""
    from ..engines.engine_selection import largest_difference
    from ..inference.batch import Batch

    for index, row in enumerate(rows[:_MERGED_ROWS]):
        try:
            alone = engine.predict(Batch(1, [row]))
        except Exception as error:  # noqa: BLE001 - a model may raise anything
            return f"it does not take a single row ({type(error).__name__})"
        if largest_difference(alone, answers[index : index + 1]) > _MERGED_DIFFERENCE:
            return "it answers a row otherwise when others are beside it"
    return None


if __name__ == "__main__":
    sys.exit(main())
