"""Converts a version in a folder: `python -m tidemill.runtime.serving.conversion.job`, a request on standard input.

{"version": "/cache/m/3", "work": "/tmp/x", "to": "skops", "trusted_types": [], "build_seconds": 900}

The version's folder has `model/` and, if its run logged one, the reference sample. The new version is written to
`WORK/version/model`, and the result to `WORK/result.json`. The old model is loaded here or in its own environment, by
the rules of the server. No process that loads it has credentials in its environment variables: this one starts with
those of uv and removes them before it loads a model.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ...common.errors import ConfigError, PlatformError, TidemillError, UserError
from ..contract.model_contract import Contract
from ..engines.engine_selection import largest_difference
from ..engines.errors import UnfitError
from ..engines.mlmodel import PICKLE_SWITCH, MLmodel
from ..engines.sample_rows import SAMPLE_FILE, model_rows
from ..inference.batch import Batch
from ..isolation.environment import READY_FOLDERS, child_environment, ensure_environment
from ..isolation.requirements import unmet_requirements
from ..settings import CompileSettings, IsolationSettings
from ..versions.preparation import PreparationSettings, load_original, read_contract, restrict_process
from .new_version import write_onnx_model, write_skops_model

RESULT: Final = "result.json"
_SCRIPT = Path(__file__).with_name("rewrite.py")
_SECONDS = 600.0


@dataclass(frozen=True)
class Job:
    """The request.

    Attributes:
        version: folder of the old version.
        work: folder for the new version.
        to: `skops` or `onnx`.
        trusted_types: types that the new skops file may create.
        build_seconds: time to build an environment.
    """

    version: Path
    work: Path
    to: str
    trusted_types: tuple[str, ...]
    build_seconds: float


def main() -> int:
    """Run the command; return its exit code. Errors are part of the result."""
    given: dict[str, Any] = json.load(sys.stdin)
    job = Job(
        Path(given["version"]), Path(given["work"]), given["to"], tuple(given["trusted_types"]), given["build_seconds"]
    )
    restrict_process()
    try:
        result = run(job)
    except TidemillError as error:
        result = {"error": str(error), "exit_code": error.exit_code}
    except Exception as error:  # noqa: BLE001 - a broken model may raise anything
        result = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:1000]}", "exit_code": 3}
    (job.work / RESULT).write_text(json.dumps(result), encoding="utf-8")
    return 0


def run(job: Job) -> dict[str, Any]:
    """Convert and compare; return the result.

    Raises:
        UserError: the model is not one of scikit-learn, or has types that nobody trusts.
        TidemillError: it cannot be loaded or written.
    """
    old = MLmodel.read(job.version / "model")
    if not old.is_sklearn:
        raise UserError("only scikit-learn models can be converted", field="model", value=old.loader)
    if job.to == "skops" and old.pickle_reason() is None:
        raise UserError("the model is already stored with skops", field="model", hint="serve it as it is")
    old.check(["pickle"])
    contract = read_contract(old)
    version = job.work / "version"
    version.mkdir()
    if (job.version / SAMPLE_FILE).is_file():
        shutil.copyfile(job.version / SAMPLE_FILE, version / SAMPLE_FILE)
    if job.to == "skops":
        write_skops_model(old, version / "model")
        file = version / "model" / "model.skops"
    else:
        file = job.work / "model.onnx"
    rewritten = _rewrite(job, old, contract, file)
    types = rewritten.get("types", [])
    if unknown := sorted(set(types) - set(job.trusted_types)):
        raise ConfigError(
            "the model contains types that skops does not trust",
            field="--trust-type",
            value=unknown,
            hint=f"review them, then add {' '.join(f'--trust-type {name}' for name in unknown)}",
        )
    if job.to == "skops":
        write_skops_model(old, version / "model", trusted_types=types)
    else:
        write_onnx_model(old, version / "model", file, contract, rewritten["outputs"])
    return {"types": types, **_compare(job, old, contract, version)}


def _rewrite(job: Job, old: MLmodel, contract: Contract, file: Path) -> dict[str, Any]:
    """Run the script in the environment of the new version, or for ONNX in that of the old one; return its result."""
    described = file.parent if job.to == "skops" else old.folder
    python = sys.executable
    if unmet_requirements(described):
        cache = job.version.parent.parent
        if job.to == "onnx":
            described = job.work / "onnx-environment"
            shutil.copytree(old.folder, described)
            with (described / "requirements.txt").open("a", encoding="utf-8") as lines:
                lines.write("\nskl2onnx\nonnx\n")
        python = str(ensure_environment(described, cache, seconds=job.build_seconds) / "bin" / "python")
    inputs = [{"name": column.name, "kind": column.kind} for column in contract.columns]
    request = {"model": str(old.folder), "to": job.to, "file": str(file), "inputs": inputs}
    try:
        done = subprocess.run(
            [python, "-I", str(_SCRIPT), json.dumps(request)],
            env={**child_environment(), PICKLE_SWITCH: "true"},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PlatformError(f"the model was not written within {_SECONDS:.0f} s", field="model") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no error message"])[-1][:1000]
        raise PlatformError(f"the model cannot be written as {job.to} ({last})", field="model")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _compare(job: Job, old: MLmodel, contract: Contract, version: Path) -> dict[str, Any]:
    """Return the number of rows, where they come from, and the largest difference; None if there are no rows."""
    rows = model_rows(old, contract, job.version)
    origin = "reference sample" if (job.version / SAMPLE_FILE).is_file() and len(rows) > 0 else "input example"
    answers: list[Any] = []
    isolation = IsolationSettings(build_seconds=job.build_seconds)
    plain = PreparationSettings(CompileSettings(engines=[]), isolation)
    new = MLmodel.read(version / "model")
    for mlmodel in (old, new):
        if unmet_requirements(mlmodel.folder):
            ensure_environment(mlmodel.folder, job.version.parent.parent, seconds=job.build_seconds)
    # All environments are built, so the settings of uv are not needed any more; they can have secrets.
    for name in set(os.environ) - {*child_environment(), READY_FOLDERS}:
        del os.environ[name]
    for mlmodel, settings, folder in ((old, replace(plain, trust=["pickle"]), job.version), (new, plain, version)):
        mlmodel.check(settings.trust)
        loaded = load_original(folder, mlmodel, contract, settings, cache=job.version.parent.parent)
        try:
            if rows:
                answers.append(loaded.engine.predict(Batch(len(rows), rows)))
        except TidemillError:
            raise
        except Exception as error:  # noqa: BLE001 - a broken model may raise anything
            raise UnfitError(f"it fails on its own rows ({type(error).__name__}: {error})") from None
        finally:
            loaded.engine.close()
    if not rows:
        return {"rows": 0, "sample": "", "difference": None}
    difference = largest_difference(answers[1], answers[0])
    # JSON has no infinity: the answers differ in form.
    return {"rows": len(rows), "sample": origin, "difference": difference if math.isfinite(difference) else -1.0}


def outcome(work: Path) -> Mapping[str, Any]:
    """Return the result of the job in `work`.

    Raises:
        TidemillError: as the job raised it.
    """
    result: dict[str, Any] = json.loads((work / RESULT).read_text(encoding="utf-8"))
    if "error" in result:
        kinds: dict[int, type[TidemillError]] = {1: UnfitError, 2: UserError}
        raise kinds.get(result["exit_code"], PlatformError)(result["error"])
    return result


if __name__ == "__main__":
    sys.exit(main())
