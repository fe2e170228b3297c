"""The model registry: versions, the gate before the alias `champion`, and who serves.

Aliases: `champion` serves, `previous` is the way back. A promotion leaves its verdict on the version, as tags.

    verdict = registry.promote("flights", "3", PromoteSettings(metric="roc_auc", at_least=0.65))
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ..common.errors import NotFoundError, PlatformError, UnreachableError
from ..common.secrets import read_secret
from ..common.settings import PromoteSettings, RegistrySettings, runtime_settings
from ..training import JOB_ID

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

__all__ = [
    "CHAMPION",
    "PREVIOUS",
    "ModelVersion",
    "Verdict",
    "connect",
    "promote",
    "serving_version",
    "version",
    "version_of_job",
]

CHAMPION = "champion"
PREVIOUS = "previous"

VERDICT_TAG = "tidemill.gate.verdict"
REASONS_TAG = "tidemill.gate.reasons"
JUDGED_TAG = "tidemill.gate.judged_at"

_SETTINGS_OF_MLFLOW = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # Six seconds in all; MLflow's own default waits for minutes before it says that nobody answers.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}

# How MLflow's client words that there was no answer; its error code is that of any failure inside the server.
_NO_ANSWER = re.compile(r"failed with (timeout )?exception|too many 5\d\d error responses")


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model.

    Attributes:
        model, version: its name.
        run_id: the run which made it.
        source: URI of its artifacts.
        tags: its tags, the lineage among them.
    """

    model: str
    version: str
    run_id: str
    source: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Verdict:
    """What the promotion gate said.

    Attributes:
        accepted: whether the version is the champion now.
        reasons: a sentence each, for a yes too.
        model, version: what was judged.
        previous: the version which was the champion before, if another was.
        value: the metric which was judged, if the run has it.
    """

    accepted: bool
    reasons: tuple[str, ...]
    model: str
    version: str
    previous: str | None = None
    value: float | None = None


def connect(settings: RegistrySettings | None = None) -> MlflowClient:
    """Return a client of the registry which `settings` (default: those of TIDEMILL_RUNTIME) name.

    MLflow takes credentials from the environment alone, so they are put into this process's own.
    """
    chosen = settings or runtime_settings().registry
    for name, value in _SETTINGS_OF_MLFLOW.items():
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
def translated(what: str) -> Generator[None]:
    """Turn MLflow's errors about `what` into ours."""
    from mlflow.exceptions import MlflowException, RestException

    try:
        yield
    except MlflowException as error:
        if isinstance(error, RestException) and error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            raise NotFoundError(f"the registry has no such thing ({error.message})", value=what) from None
        if _NO_ANSWER.search(error.message):
            raise UnreachableError(
                "the registry does not answer",
                field="registry",
                value=os.environ.get("MLFLOW_TRACKING_URI"),
                hint="see `tidemill status`; `tidemill start` brings it back",
            ) from None
        raise PlatformError(f"the registry refused ({error.message})", field="registry", value=what) from None


def version(model: str, number: str | int, *, registry: RegistrySettings | None = None) -> ModelVersion:
    """Return a version by its number.

    Raises:
        NotFoundError: there is none of that number.
    """
    client = connect(registry)
    with translated(f"{model}@{number}"):
        return _version(client.get_model_version(model, str(number)))


def serving_version(
    model: str, alias: str = CHAMPION, *, registry: RegistrySettings | None = None
) -> ModelVersion | None:
    """Return the version which bears `alias`, or None where none does."""
    client = connect(registry)
    with translated(model):
        return _aliased(client, model, alias)


def version_of_job(model: str, job: str, *, registry: RegistrySettings | None = None) -> ModelVersion | None:
    """Return the newest version which the job `job` trained, or None."""
    client = connect(registry)
    with translated(model):
        wanted = f"name = '{_quoted(model)}' and tags.`{JOB_ID}` = '{_quoted(job)}'"
        found = [_version(item) for item in client.search_model_versions(wanted)]
    return max(found, key=lambda item: int(item.version), default=None)


def promote(
    model: str, number: str | int, gate: PromoteSettings, *, registry: RegistrySettings | None = None
) -> Verdict:
    """Judge a version by its run's metric; when it is good enough, make it the champion and keep the way back.

    It may be called again after it was interrupted, and changes nothing for a version which is the champion already.

    Raises:
        NotFoundError: there is no such model or version.
        UnreachableError: the registry does not answer.
    """
    client = connect(registry)
    with translated(f"{model}@{number}"):
        candidate = _version(client.get_model_version(model, str(number)))
        value = client.get_run(candidate.run_id).data.metrics.get(gate.metric)
        accepted, reason = _judge(gate, value)
        champion = _aliased(client, model, CHAMPION)
        before = champion.version if champion and champion.version != candidate.version else None
        for key, text in {
            VERDICT_TAG: "accepted" if accepted else "refused",
            REASONS_TAG: json.dumps([reason]),
            JUDGED_TAG: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }.items():
            client.set_model_version_tag(model, candidate.version, key, text)
        if accepted:
            # In this order a crash in between leaves a champion, and the same call again ends the same.
            if before:
                client.set_registered_model_alias(model, PREVIOUS, before)
            if champion is None or before:
                client.set_registered_model_alias(model, CHAMPION, candidate.version)
    return Verdict(accepted, (reason,), model, candidate.version, before, value)


def _judge(gate: PromoteSettings, value: float | None) -> tuple[bool, str]:
    """Return whether `value` is enough, and why.

    >>> _judge(PromoteSettings(metric="roc_auc", at_least=0.65), 0.6)
    (False, 'roc_auc is 0.6000, below the floor of 0.6500')
    """
    if value is None:
        return False, f"the run has no metric {gate.metric}"
    if math.isnan(value):
        return False, f"{gate.metric} is not a number"
    if value < gate.at_least:
        return False, f"{gate.metric} is {value:.4f}, below the floor of {gate.at_least:.4f}"
    return True, f"{gate.metric} is {value:.4f}, at or above the floor of {gate.at_least:.4f}"


def _aliased(client: MlflowClient, model: str, alias: str) -> ModelVersion | None:
    from mlflow.exceptions import RestException

    try:
        return _version(client.get_model_version_by_alias(model, alias))
    except RestException as error:
        # An alias which nobody bears is an invalid parameter to MLflow.
        if error.error_code == "INVALID_PARAMETER_VALUE" and f"alias {alias} not found" in error.message:
            return None
        raise


def _version(found: MlflowVersion) -> ModelVersion:
    return ModelVersion(
        str(found.name), str(found.version), str(found.run_id or ""), str(found.source or ""), dict(found.tags)
    )


def _quoted(text: str) -> str:
    return text.replace("'", "")
