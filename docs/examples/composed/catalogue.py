"""Answers `GET /heads` with the head commit of each repository. Requires the bearer token."""

from __future__ import annotations

import sys
from pathlib import Path

from fastapi import Depends, FastAPI
from tidemill.runtime.common.service import bearer, run, token_of
from tidemill.runtime.common.settings import LakeSettings, ServiceSettings, load_settings
from tidemill.runtime.data.lake_client import Lake


class Settings(ServiceSettings):
    """The contents of settings.json."""

    lake: LakeSettings
    repositories: list[str]


settings = load_settings(Path(sys.argv[1]), Settings)
lake = Lake(settings.lake)
app = FastAPI()


@app.get("/healthz")
def healthz() -> dict[str, str]:
    """Report that the process is alive; `up` waits for this."""
    return {"status": "ok"}


@app.get("/heads", dependencies=[Depends(bearer(token_of(settings.listen)))])
def heads() -> dict[str, str]:
    """Return the head commit of each repository's `main`."""
    return {name: lake.head(name, "main").id for name in settings.repositories}


run(app, settings.listen)
