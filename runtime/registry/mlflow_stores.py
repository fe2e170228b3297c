"""MLflow's stores for runs and models, with the rules of the platform.

- Artifacts are only in the server's own store: other locations are refused, also in old experiments.
- Runs, logged models and versions name the account that created them; versions also who moved an alias to them.
- Only the account of a service, and administrators, change its runs and logged models.
- Only the training account sets the tag of a job, and only accounts that may promote set the tags of the gate.
- Only administrators create registered models.
- The artifacts of a version, and of a complete logged model, do not change.

These classes replace MLflow's own through its registries of stores, so the rules apply to every route.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar, cast
from urllib.parse import unquote

from mlflow.entities import LoggedModel, LoggedModelStatus, LoggedModelTag, Run, RunInfo, RunStatus, RunTag
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag, RegisteredModel, RegisteredModelTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as MlflowModels
from mlflow.store.tracking.dbmodels.models import SqlTag
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as MlflowRuns
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from ..common.tags import ACCOUNT, MOVED
from .accounts import CURRENT, changer_of, who_sets
from .artifact_locations import PROXIED, is_proxied

# A version may also name a run's artifact or another version; MLflow resolves both to their proxied locations.
_SOURCES = frozenset({PROXIED, "runs", "models"})


_NO_PLACE = "it is not in the artifact folder of an existing run or logged model"

_MadeTag = TypeVar("_MadeTag", RunTag, LoggedModelTag, ModelVersionTag)


def require_proxied(uri: str, field: str, schemes: Iterable[str] = (PROXIED,)) -> None:
    """Raise MlflowException unless `uri` is in this server's artifact store."""
    if not is_proxied(uri, schemes):
        wanted = " or ".join(f"{scheme}:/" for scheme in sorted(schemes))
        raise MlflowException(
            f"{field} is outside of the artifact store: {uri!r}; leave it out, or use a path under {wanted}",
            INVALID_PARAMETER_VALUE,
        )


def _refuse_reserved(keys: Iterable[str]) -> None:
    for key in keys:
        if who := who_sets(key):
            raise MlflowException(f"only {who} sets the tag {key}; leave it out", PERMISSION_DENIED)


def _require_changer(subject: str, owner: str | None) -> None:
    if changer := changer_of(owner):
        raise MlflowException(f"only the account {changer} changes {subject}; create your own", PERMISSION_DENIED)


def _stamped(tags: Iterable[_MadeTag] | None, make: type[_MadeTag]) -> list[_MadeTag]:
    """Return `tags` without reserved ones, and with the account of the request."""
    kept = [tag for tag in tags or () if not who_sets(tag.key)]
    account = CURRENT.get()
    return kept if account is None else [*kept, make(ACCOUNT, account.name)]


class Runs(MlflowRuns):
    """Experiments, runs and logged models."""

    def create_experiment(self, name: str, artifact_location: str | None = None, tags: Any = None) -> str:
        """Create an experiment, in the artifact store only."""
        if artifact_location:
            require_proxied(artifact_location, "artifact_location")
        return super().create_experiment(name, artifact_location, tags)

    def create_run(self, experiment_id: str, user_id: str, start_time: int, tags: Any, run_name: str) -> Run:
        """Create a run that names its account."""
        self._require_store(experiment_id)
        return super().create_run(experiment_id, user_id, start_time, _stamped(tags, RunTag), run_name)

    def update_run_info(self, run_id: str, run_status: Any, end_time: Any, run_name: Any) -> RunInfo:
        """Change the status or name of a run that the account may change."""
        self._require_run(run_id)
        return super().update_run_info(run_id, run_status, end_time, run_name)

    def log_metric(self, run_id: str, metric: Any) -> None:
        """Log a metric in a run that the account may change."""
        self._require_run(run_id)
        super().log_metric(run_id, metric)

    def log_param(self, run_id: str, param: Any) -> None:
        """Log a parameter in a run that the account may change."""
        self._require_run(run_id)
        super().log_param(run_id, param)

    def log_inputs(self, run_id: str, datasets: Any = None, models: Any = None) -> None:
        """Log the inputs of a run that the account may change."""
        self._require_run(run_id)
        super().log_inputs(run_id, datasets, models)

    def log_outputs(self, run_id: str, models: Any) -> None:
        """Log the outputs of a run that the account may change."""
        self._require_run(run_id)
        super().log_outputs(run_id, models)

    def record_logged_model(self, run_id: str, mlflow_model: Any) -> None:
        """Record a model in a run that the account may change."""
        self._require_run(run_id)
        super().record_logged_model(run_id, mlflow_model)

    def set_tag(self, run_id: str, tag: RunTag) -> None:
        """Set a tag that is not reserved."""
        self._require_run(run_id)
        _refuse_reserved([tag.key])
        super().set_tag(run_id, tag)

    def delete_tag(self, run_id: str, key: str) -> None:
        """Delete a tag that is not reserved."""
        self._require_run(run_id)
        _refuse_reserved([key])
        super().delete_tag(run_id, key)

    def log_batch(self, run_id: str, metrics: Any, params: Any, tags: Sequence[RunTag]) -> None:
        """Log metrics, parameters, and tags that are not reserved."""
        self._require_run(run_id)
        _refuse_reserved(tag.key for tag in tags)
        super().log_batch(run_id, metrics, params, tags)

    def create_logged_model(
        self,
        experiment_id: str,
        name: str | None = None,
        source_run_id: str | None = None,
        tags: list[LoggedModelTag] | None = None,
        params: Any = None,
        model_type: str | None = None,
    ) -> LoggedModel:
        """Create a logged model that names its account."""
        self._require_store(experiment_id)
        stamped = _stamped(tags, LoggedModelTag)
        return super().create_logged_model(experiment_id, name, source_run_id, stamped, params, model_type)

    def finalize_logged_model(self, model_id: str, status: LoggedModelStatus) -> LoggedModel:
        """Set the status of a logged model that is not complete yet."""
        account, now = CURRENT.get(), self._require_logged_model(model_id).status
        if account and not account.admin and LoggedModelStatus.is_finalized(now) and now != status:
            raise MlflowException(f"the model {model_id} is complete ({now}); log a new one", INVALID_PARAMETER_VALUE)
        return super().finalize_logged_model(model_id, status)

    def log_logged_model_params(self, model_id: str, params: Any) -> None:
        """Log parameters of a logged model that the account may change."""
        self._require_logged_model(model_id)
        super().log_logged_model_params(model_id, params)

    def set_logged_model_tags(self, model_id: str, tags: list[LoggedModelTag]) -> None:
        """Set tags that are not reserved."""
        # MLflow itself lists a model's versions in this tag.
        if {tag.key for tag in tags} != {MLFLOW_MODEL_VERSIONS}:
            self._require_logged_model(model_id)
        _refuse_reserved(tag.key for tag in tags)
        super().set_logged_model_tags(model_id, tags)

    def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        """Delete a tag that is not reserved."""
        self._require_logged_model(model_id)
        _refuse_reserved([key])
        super().delete_logged_model_tag(model_id, key)

    def owner_of_run(self, run_id: str) -> str | None:
        """Return the account that created the run, or None if the server did not record it."""
        with self.ManagedSessionMaker() as session:
            found = session.query(SqlTag.value).filter(SqlTag.run_uuid == run_id, SqlTag.key == ACCOUNT).first()
        return str(found[0]) if found else None

    def require_complete(self, run_id: str | None, model_id: str | None) -> None:
        """Raise MlflowException if a run or logged model is incomplete and the account may not change it."""
        if model_id:
            model = self.get_logged_model(model_id)
            run_id = run_id or model.source_run_id
            if not LoggedModelStatus.is_finalized(model.status):
                self._require_logged_model(model_id)
        if run_id and self.get_run(run_id).info.status == RunStatus.to_string(RunStatus.RUNNING):
            self._require_run(run_id)

    def _require_run(self, run_id: str) -> None:
        _require_changer(f"the run {run_id}", self.owner_of_run(run_id))

    def _require_logged_model(self, model_id: str) -> LoggedModel:
        found = self.get_logged_model(model_id)
        _require_changer(f"the model {model_id}", found.tags.get(ACCOUNT))
        return found

    def _require_store(self, experiment_id: str) -> None:
        location = self.get_experiment(experiment_id).artifact_location
        require_proxied(location, f"artifact_location of the experiment {experiment_id}")


class Models(MlflowModels):
    """Registered models, versions and aliases."""

    def create_registered_model(
        self, name: str, tags: Any = None, description: str | None = None, deployment_job_id: str | None = None
    ) -> RegisteredModel:
        """Create a registered model, for administrators only."""
        account = CURRENT.get()
        if account and not account.admin and not self._exists(name):
            raise MlflowException(
                f"the account {account.name} may not create the registered model {name}; "
                "add it to `models` in the stack config and run `tidemill up`",
                PERMISSION_DENIED,
            )
        _refuse_reserved(tag.key for tag in tags or ())
        made = super().create_registered_model(name, tags, description, deployment_job_id)
        return cast("RegisteredModel", made)

    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: Any = None,
        run_link: str | None = None,
        description: str | None = None,
        local_model_path: str | None = None,
        model_id: str | None = None,
    ) -> ModelVersion:
        """Create a version that names its account, from the artifact store only.

        The files of a version are closed, so a version from the run of a job that still trains would stop the job.
        """
        require_proxied(source, "source", _SOURCES)
        runs_here().require_complete(run_id, model_id)
        stamped = _stamped(tags, ModelVersionTag)
        return super().create_model_version(
            name, source, run_id, stamped, run_link, description, local_model_path, model_id
        )

    def set_model_version_tag(self, name: str, version: str, tag: ModelVersionTag) -> None:
        """Set a tag that is not reserved."""
        _refuse_reserved([tag.key])
        super().set_model_version_tag(name, version, tag)

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        """Delete a tag that is not reserved."""
        _refuse_reserved([key])
        super().delete_model_version_tag(name, version, key)

    def set_registered_model_tag(self, name: str, tag: RegisteredModelTag) -> None:
        """Set a tag that is not reserved."""
        _refuse_reserved([tag.key])
        super().set_registered_model_tag(name, tag)

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Delete a tag that is not reserved."""
        _refuse_reserved([key])
        super().delete_registered_model_tag(name, key)

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Move an alias, and record the account on the version and the registered model."""
        super().set_registered_model_alias(name, alias, version)
        move = self._record_move(name, alias, str(version))
        super().set_model_version_tag(name, version, ModelVersionTag(MOVED + alias, move))

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Delete an alias, and record the account on the registered model."""
        super().delete_registered_model_alias(name, alias)
        self._record_move(name, alias, None)

    def version_at(self, locations: Sequence[str]) -> str | None:
        """Return NAME@VERSION of a version whose artifacts are at one of `locations`, or None."""
        with self.ManagedSessionMaker() as session:
            found = (
                session.query(SqlModelVersion.name, SqlModelVersion.version)
                .filter(SqlModelVersion.storage_location.in_(locations))
                .first()
            )
        return f"{found[0]}@{found[1]}" if found else None

    def version_of_run(self, run_id: str) -> str | None:
        """Return NAME@VERSION of a version that the run created, or None."""
        with self.ManagedSessionMaker() as session:
            found = (
                session.query(SqlModelVersion.name, SqlModelVersion.version)
                .filter(SqlModelVersion.run_id == run_id)
                .first()
            )
        return f"{found[0]}@{found[1]}" if found else None

    def _record_move(self, name: str, alias: str, version: str | None) -> str:
        """Record on the registered model which account moved its alias to `version`; return the record as JSON."""
        account = CURRENT.get()
        move = {
            "account": account.name if account else None,
            "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "version": version,
        }
        text = json.dumps(move)
        super().set_registered_model_tag(name, RegisteredModelTag(MOVED + alias, text))
        return text

    def _exists(self, name: str) -> bool:
        try:
            self.get_registered_model(name)
        except MlflowException:
            return False
        return True


def upload_problem(runs: Runs, models: Models, path: str) -> str | None:
    """Return why the account of the request may not write to `path` in the artifact store, or None.

    Administrators may write everywhere. Others may write only to the folders of existing runs and logged models:
    elsewhere, a file could block the name of a folder. They may not write to the files of a version, or to the runs and
    logged models of a service's account: these files could otherwise be replaced after or before the promotion.
    """
    while (plain := unquote(path)) != path:
        path = plain
    parts = posixpath.normpath("/" + path.replace("\\", "/")).strip("/").split("/")
    names = parts[4:] if parts[1:2] == ["models"] else parts[3:]
    root = f"{PROXIED}:/{'/'.join(parts[: len(parts) - len(names)])}"
    places = [f"{root}/{'/'.join(names[:length])}".rstrip("/") for length in range(len(names) + 1)]
    try:
        if not names:
            return _NO_PLACE
        if parts[1] == "models":
            model = runs.get_logged_model(parts[2])
            location, owner = model.artifact_location, model.tags.get(ACCOUNT)
            if LoggedModelStatus.is_finalized(model.status):
                return f"the logged model {model.model_id} is complete; log a new one"
        else:
            run = parts[1]
            location, owner = runs.get_run(run).info.artifact_uri, runs.owner_of_run(run)
            places += [f"runs:/{run}/{'/'.join(names[:length])}" for length in range(1, len(names) + 1)]
            # Lineage and drift reference.
            if names[0] == "tidemill" and (version := models.version_of_run(run)):
                return f"the run {run} created {version}, so these files cannot change; start a new run"
    except MlflowException:
        return _NO_PLACE
    if location != root:
        return _NO_PLACE
    if changer := changer_of(owner):
        return f"it belongs to the account {changer}"
    version = models.version_at(places)
    return f"it belongs to {version}, whose files cannot change; log a new version" if version else None


def runs_here() -> Runs:
    """Return the store of runs of this process's server."""
    from mlflow.server import handlers

    return cast("Runs", handlers._get_tracking_store())  # pyright: ignore[reportPrivateUsage]


def upload_problem_here(path: str) -> str | None:
    """Return `upload_problem` for the stores of this process's server."""
    from mlflow.server import handlers

    models = cast("Models", handlers._get_model_registry_store())  # pyright: ignore[reportPrivateUsage]
    return upload_problem(runs_here(), models, path)


def install() -> None:
    """Make MLflow's server use these stores, and only artifacts in its own store."""
    from mlflow.server import handlers
    from mlflow.store.db.db_types import DATABASE_ENGINES

    def runs(store_uri: str, artifact_uri: str) -> Runs:
        return Runs(store_uri, artifact_uri)

    def models(store_uri: str) -> Models:
        return Models(store_uri)

    for scheme in DATABASE_ENGINES:
        handlers._tracking_store_registry.register(scheme, runs)  # pyright: ignore[reportPrivateUsage]
        handlers._model_registry_store_registry.register(scheme, models)  # pyright: ignore[reportPrivateUsage]
    open_repository = handlers._get_artifact_repository_for_uri  # pyright: ignore[reportPrivateUsage]

    def open_proxied(artifact_uri: str) -> Any:
        require_proxied(artifact_uri, "artifact_uri")
        return open_repository(artifact_uri)

    # The one place where MLflow's server opens the location of a run or model that it does not proxy.
    handlers._get_artifact_repository_for_uri = open_proxied  # pyright: ignore[reportPrivateUsage]
