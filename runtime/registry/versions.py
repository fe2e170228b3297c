"""Versions of registered models, and the connection to the MLflow server that holds them."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..common.errors import NotFoundError, PlatformError
from ..common.http import unreachable
from ..common.secrets import read_secret
from ..common.settings import RegistrySettings, runtime_settings
from ..common.tags import ACCOUNT, JOB_ID
from .accounts import trainer_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

CHAMPION = "champion"

_MLFLOW_VARIABLES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # Six seconds in total. MLflow's default retries for minutes before it reports an unreachable server.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}

# MLflow's messages when the server is unreachable or answers 5xx. The error code is the same for any internal error.
_NO_ANSWER = re.compile(r"failed with (timeout )?exception|too many 5\d\d error responses")


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model.

    Attributes:
        model, version: its name and number.
        run_id: the run that trained it.
        source: URI of its artifacts.
        tags: its tags, which include the lineage.
    """

    model: str
    version: str
    run_id: str
    source: str
    tags: Mapping[str, str]

    @classmethod
    def of(cls, found: MlflowVersion) -> ModelVersion:
        """Convert MLflow's object."""
        return cls(
            str(found.name), str(found.version), str(found.run_id or ""), str(found.source or ""), dict(found.tags)
        )


def connect(settings: RegistrySettings | None = None) -> MlflowClient:
    """Return a client of the registry in `settings`, by default that of TIDEMILL_RUNTIME.

    MLflow reads credentials only from the environment, so this sets them in the environment of this process.
    """
    chosen = settings or runtime_settings().registry
    for name, value in _MLFLOW_VARIABLES.items():
        os.environ.setdefault(name, value)
    if chosen.username is not None and chosen.password_file is not None:
        os.environ["MLFLOW_TRACKING_USERNAME"] = chosen.username
        os.environ["MLFLOW_TRACKING_PASSWORD"] = read_secret(chosen.password_file)
    os.environ.pop("MLFLOW_TRACKING_TOKEN", None)
    import mlflow

    mlflow.set_tracking_uri(chosen.tracking_uri)
    mlflow.set_registry_uri(chosen.tracking_uri)
    return mlflow.MlflowClient(chosen.tracking_uri, chosen.tracking_uri)


@contextmanager
def translate_errors(subject: str) -> Generator[None]:
    """Translate MLflow's errors about `subject` into tidemill's."""
    from mlflow.exceptions import MlflowException, RestException

    try:
        yield
    except MlflowException as error:
        if isinstance(error, RestException) and error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            raise NotFoundError(f"not found in the registry ({error.message})", value=subject) from None
        if _NO_ANSWER.search(error.message):
            raise unreachable("registry", os.environ.get("MLFLOW_TRACKING_URI"), server="the registry") from None
        raise PlatformError(
            f"the registry refused the request ({error.message})", field="registry", value=subject
        ) from None


def version(model: str, number: str | int, *, registry: RegistrySettings | None = None) -> ModelVersion:
    """Return a version by its number.

    Raises:
        NotFoundError: the version does not exist.
    """
    client = connect(registry)
    with translate_errors(f"{model}@{number}"):
        return ModelVersion.of(client.get_model_version(model, str(number)))


def serving_version(
    model: str, alias: str = CHAMPION, *, registry: RegistrySettings | None = None
) -> ModelVersion | None:
    """Return the version that `alias` points at, or None if no version has that alias."""
    client = connect(registry)
    with translate_errors(model):
        return find_by_alias(client, model, alias)


def version_of_job(model: str, job: str, *, registry: RegistrySettings | None = None) -> ModelVersion | None:
    """Return the newest version that the job `job` trained, or None.

    The training account must have created the version and its run, as the stack's MLflow records. Versions of earlier
    releases and of an existing MLflow server may have no such record; they are accepted without this proof.
    """
    chosen = registry or runtime_settings().registry
    client = connect(chosen)
    with translate_errors(model):
        query = f"name = '{_without_quotes(model)}' and tags.`{JOB_ID}` = '{_without_quotes(job)}'"
        found = [ModelVersion.of(item) for item in client.search_model_versions(query)]
        # Newest first.
        for made in sorted(found, key=lambda item: -int(item.version)):
            if not _is_trained(made.tags, chosen):
                continue
            if not made.run_id or _is_trained(client.get_run(made.run_id).data.tags, chosen):
                return made
    return None


def find_by_alias(client: MlflowClient, model: str, alias: str) -> ModelVersion | None:
    """Return the version that `alias` points at, or None."""
    from mlflow.exceptions import RestException

    try:
        return ModelVersion.of(client.get_model_version_by_alias(model, alias))
    except RestException as error:
        # MLflow reports an unused alias as an invalid parameter.
        if error.error_code == "INVALID_PARAMETER_VALUE" and f"alias {alias} not found" in error.message:
            return None
        raise


def _is_trained(tags: Mapping[str, str], registry: RegistrySettings) -> bool:
    """Return whether the training account created what has `tags`, or the server did not record who did."""
    owner = tags.get(ACCOUNT)
    return owner is None or registry.username is None or owner == trainer_of(registry.username)


def _without_quotes(text: str) -> str:
    return text.replace("'", "")
