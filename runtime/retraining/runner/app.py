"""The runner over HTTP: `PUT /jobs/ID` starts the training of a model, `GET` asks for it, `DELETE` ends it."""

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

__all__ = ["create_app"]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,127}")


class Wanted(BaseModel):
    """A training as the retraining service asks for it."""

    model: str = Field(max_length=100)
    argv: list[str] = Field(max_length=200)
    cwd: str = Field(max_length=4096)


def create_app(settings: RunnerSettings) -> FastAPI:
    """Return the service.

    Raises:
        NotFoundError, ConfigError: its secret is missing or empty.
    """
    token = token_of(settings.listen)
    launcher = ProcessLauncher(settings.state / "jobs")
    trainings = {training.model: training for training in settings.trainings}
    app = FastAPI(title="tidemill runner", docs_url=None, redoc_url=None, openapi_url=None)
    add_metrics(app, token, CollectorRegistry())
    guarded = [Depends(bearer(token))]

    @app.put("/jobs/{job}", dependencies=guarded)
    def launch(job: str, wanted: Wanted) -> dict[str, str]:
        _named(job)
        known = trainings.get(wanted.model)
        # Compared although the model's name alone would do: two configs which differ must not pass for one.
        if known is None or (wanted.argv, Path(wanted.cwd)) != (known.command, known.code):
            raise HTTPException(403, "this is no training which may be run here")
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
        _named(job)
        found = launcher.status(job)
        return {"state": found.state, "started": found.started, "exit_code": found.exit_code}

    @app.get("/jobs/{job}/logs", dependencies=guarded)
    def logs(job: str, lines: int = Query(20, ge=1, le=1000)) -> dict[str, str]:
        _named(job)
        return {"text": launcher.logs(job, lines)}

    @app.delete("/jobs/{job}", dependencies=guarded)
    def cancel(job: str) -> dict[str, str]:
        _named(job)
        launcher.cancel(job)
        return {"id": job}

    return app


def _named(job: str) -> None:
    """Refuse an id which is no file name of its own."""
    if not _ID.fullmatch(job):
        raise HTTPException(422, "an id is letters, digits and -")
