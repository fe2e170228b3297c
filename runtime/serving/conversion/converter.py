"""Converts a model and registers the result as a new version, with the lineage of the old one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from ...common.errors import NotFoundError, PlatformError, RefusedError, UserError
from ...common.tags import ACCOUNT, GATE, JOB_ID, MOVED
from ..engines.mlmodel import MLmodel
from ..isolation.environment import building_environment
from ..settings import ServingSettings
from ..versions.child_process import run_child
from ..versions.model import VersionInfo
from ..versions.source import source_of
from .job import outcome
from .new_version import write_mlmodel

CONVERTED_FROM: Final = "tidemill.converted.from"
"""Tag of a converted version and its run: the version that it was made from, as NAME@VERSION."""

Format = Literal["skops", "onnx"]
_SECONDS: Final = 3600.0


@dataclass(frozen=True)
class Converted:
    """The result of a conversion.

    Attributes:
        model: name of the model.
        converted_from: the old version.
        version: the new version; None if the model was written to a folder.
        run_id: its run; empty for a folder.
        folder: where the model was written; None if it was registered.
        to: `skops` or `onnx`.
        trusted_types: types that the new version may create.
        rows: number of compared rows.
        sample: where they come from.
        difference: largest difference of the answers, absolute or relative; None if they were not compared, -1 if they
            differ in form.
    """

    model: str
    converted_from: str
    version: str | None
    run_id: str
    folder: str | None
    to: Format
    trusted_types: Sequence[str]
    rows: int
    sample: str
    difference: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**asdict(self), "trusted_types": list(self.trusted_types)}


def convert(
    settings: ServingSettings,
    *,
    to: Format = "skops",
    trusted_types: Sequence[str] = (),
    tolerance: float = 1e-6,
    accept_difference: bool = False,
    folder: Path | None = None,
) -> Converted:
    """Convert the version in `settings`, compare the answers of both, and register the new one.

    Args:
        settings: the source and the cache; `trust` must have `pickle` to read a pickle.
        to: the new format.
        trusted_types: full names of types that loading the new version may create, beyond skops' own list.
        tolerance: largest accepted difference, absolute or relative.
        accept_difference: accept any difference, and models without rows to compare.
        folder: write the model here instead of registering it.

    Raises:
        UserError: the model is not one of scikit-learn, has untrusted types, or `folder` exists.
        RefusedError: it holds a pickle that is not trusted, or the answers differ, or there are no rows to compare.
        PlatformError: the registry does not answer, or the model cannot be loaded or written.
    """
    if folder is not None and folder.exists():
        raise UserError("the folder exists", field="OUT", value=str(folder), hint="name a new one")
    with closing(source_of(settings, settings.alias)) as source:
        info = source.resolve()
        if info is None:
            raise NotFoundError("the registry has no such version", field="model", value=settings.model)
        version = source.fetch(info)
    if "pickle" not in settings.trust and (reason := MLmodel.read(version / "model").pickle_reason()) is not None:
        raise RefusedError(reason, hint="to convert it, let it run code as your user once: add --trust pickle")
    with tempfile.TemporaryDirectory(prefix="tidemill-convert-") as text:
        work = Path(text)
        request = {
            "version": str(version.absolute()),
            "work": text,
            "to": to,
            "trusted_types": list(trusted_types),
            "build_seconds": settings.isolation.build_seconds,
        }
        run_child(
            "tidemill.runtime.serving.conversion.job",
            [],
            request,
            seconds=_SECONDS,
            what=f"version {info.version}",
            environ=building_environment(),
        )
        result = outcome(work)
        if not accept_difference:
            _check(result, tolerance)
        new = work / "version" / "model"
        made, run_id = None, ""
        if folder is not None:
            shutil.copytree(new, folder)
        else:
            made, run_id = _register(settings, info, new, work / "version")
        return Converted(
            model=info.model,
            converted_from=info.version,
            version=made,
            run_id=run_id,
            folder=str(folder) if folder is not None else None,
            to=to,
            trusted_types=result["types"],
            rows=result["rows"],
            sample=result["sample"],
            difference=result["difference"],
        )


def _check(result: Any, tolerance: float) -> None:
    difference = result["difference"]
    anyway = "--accept-difference converts it anyway"
    if difference is None:
        raise RefusedError("there are no rows to compare: it has no reference sample and no input example", hint=anyway)
    if difference < 0:
        raise RefusedError(f"the new version answers in another form on {result['rows']} rows", hint=anyway)
    if difference > tolerance:
        text = f"the answers differ by up to {difference:.1e} on {result['rows']} rows of its {result['sample']}"
        raise RefusedError(f"{text}, more than {tolerance:.1e}", hint=anyway)


def _register(settings: ServingSettings, info: VersionInfo, new: Path, version: Path) -> tuple[str, str]:
    """Log the model in a new run and register it; return the version and the run."""
    assert settings.registry is not None  # noqa: S101 - a folder is written to a folder
    from ... import registry

    client = registry.connect(settings.registry)
    with registry.translate_errors(info.model):
        import mlflow
        from mlflow.entities import Metric, Param

        old = client.get_run(info.run_id) if info.run_id else None
        experiment = old.info.experiment_id if old is not None else _experiment(client, info.model)
        tags = {**lineage_tags(info.tags), CONVERTED_FROM: f"{info.model}@{info.version}"}
        run = client.create_run(experiment, tags=tags, run_name=f"convert {info.model}@{info.version}")
        run_id = str(run.info.run_id)
        try:
            if old is not None:
                metrics = [Metric(key, value, run.info.start_time, 0) for key, value in old.data.metrics.items()]
                params = [Param(key, value) for key, value in old.data.params.items()]
                client.log_batch(run_id, metrics=metrics, params=params)
                _copy_reference(client, info.run_id, run_id, version)
            logged = client.create_logged_model(experiment, name="model", source_run_id=run_id)
            document: dict[str, Any] = yaml.safe_load((new / "MLmodel").read_text(encoding="utf-8"))
            write_mlmodel(new, document | {"run_id": run_id, "model_id": logged.model_id})
            client.log_model_artifacts(logged.model_id, str(new))
            client.finalize_logged_model(logged.model_id, "READY")
            made = mlflow.register_model(f"models:/{logged.model_id}", info.model, tags=tags)
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id)
    return str(made.version), run_id


def _experiment(client: Any, model: str) -> str:
    found = client.get_experiment_by_name(model)
    if found is None:
        raise PlatformError("the registry has no experiment of this name", field="model", value=model)
    return str(found.experiment_id)


def lineage_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of the old version that also describe the new one.

    The promotion gate has not judged the new version, no job trained it, and no alias was moved to it.

    >>> lineage_tags({"tidemill.git.commit": "d3c0de", "tidemill.gate.verdict": "accepted", "tidemill.job.id": "4"})
    {'tidemill.git.commit': 'd3c0de'}
    """
    others = (GATE, MOVED)
    return {
        name: value
        for name, value in tags.items()
        if name not in (JOB_ID, ACCOUNT) and not name.startswith(others) and name.startswith("tidemill.")
    }


def _copy_reference(client: Any, old: str, new: str, version: Path) -> None:
    """Copy the profile, the sample and the target that drift is measured against."""
    for item in client.list_artifacts(old, "tidemill"):
        if not item.is_dir:
            file = client.download_artifacts(old, item.path, str(version))
            client.log_artifact(new, file, "tidemill")
