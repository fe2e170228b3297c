"""The HTTP interface of the runner: `PUT /jobs/ID` starts a training, `GET` returns its state, `DELETE` stops it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Query
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, Field

from ...common.errors import ServiceError
from ...common.service import add_metrics, bearer, token_of
from ..jobs.launcher import JobSpec
from ..jobs.process import ProcessLauncher
from .settings import RunnerSettings

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,127}")


class TrainingRequest(BaseModel):
    """A training that the retraining service requests."""

    model: str = Field(max_length=100)
    argv: list[str] = Field(max_length=200)
    cwd: str = Field(max_length=4096)


def create_app(settings: RunnerSettings) -> FastAPI:
    """Return the service.

    Raises:
        NotFoundError, ConfigError: the token file is missing or empty.
    """
    token = token_of(settings.listen)
    launcher = ProcessLauncher(settings.state / "jobs")
    allowed = {training.model: training for training in settings.trainings}
    app = FastAPI(title="tidemill runner", docs_url=None, redoc_url=None, openapi_url=None)
    add_metrics(app, token, CollectorRegistry())
    guarded = [Depends(bearer(token))]

    @app.put("/jobs/{job}", dependencies=guarded)
    def launch(job: str, training: TrainingRequest) -> dict[str, str]:
        _check_id(job)
        known = allowed.get(training.model)
        # The name alone would do, but a different command means that the two services have different configs.
        if known is None or (training.argv, Path(training.cwd)) != (known.command, known.code):
            raise HTTPException(403, "this training is not in the runner's settings")
        env = {
            "TIDEMILL_RUNTIME": str(settings.runtime),
            "TIDEMILL_JOB_ID": job,
            "TIDEMILL_MODEL": known.model,
            "DO_NOT_TRACK": "true",
        }
        try:
            return {"id": launcher.launch(JobSpec(job, known.command, known.code, env))}
        except ServiceError as error:
            raise HTTPException(409, str(error)) from None

    @app.get("/jobs/{job}", dependencies=guarded)
    def status(job: str) -> dict[str, Any]:
        _check_id(job)
        found = launcher.status(job)
        return {"state": found.state, "started": found.started, "exit_code": found.exit_code}

    @app.get("/jobs/{job}/logs", dependencies=guarded)
    def logs(job: str, lines: int = Query(20, ge=1, le=1000)) -> dict[str, str]:
        _check_id(job)
        return {"text": launcher.logs(job, lines)}

    @app.delete("/jobs/{job}", dependencies=guarded)
    def cancel(job: str) -> dict[str, str]:
        _check_id(job)
        launcher.cancel(job)
        return {"id": job}

    return app


def _check_id(job: str) -> None:
    """Reject an id that is not a plain file name."""
    if not _ID.fullmatch(job):
        raise HTTPException(422, "a job id consists of letters, digits and -")
