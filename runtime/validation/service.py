"""The gate as a web service: lakeFS calls `POST /hooks/lakefs` before it merges.

With 200 lakeFS continues. With any other result (422 with the reasons, 401, 500, no answer) it refuses the operation.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Histogram
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from ..common.errors import ConfigError, TidemillError
from ..common.secrets import read_secret
from ..common.service import add_metrics, token_matches, token_of
from ..data import Lake
from .action import HOOK_HEADER
from .gate import Event, Gate, hook_identifier
from .records import Records
from .settings import ValidationSettings
from .suite import SuiteFile, SuiteRunner

_BODY_LIMIT = 64 * 1024
# Shorter than the action's own timeout, so that lakeFS receives the reason.
_WARM_UP_LIMIT = 120.0
# A deleted verdict makes readers refuse its commit until it is restored.
_RESTORE_EVERY = 60.0
_RESTORE_RETRY = 3.0

_log = logging.getLogger(__name__)


def create_app(settings: ValidationSettings) -> FastAPI:
    """Return the service. It imports Great Expectations in the background; hooks wait for it.

    Raises:
        NotFoundError, ConfigError: a secret or a suite is missing or invalid.
    """
    secret = read_secret(settings.hook_secret_file)
    suites = {repository: SuiteFile.read(path) for repository, path in settings.suites.items()}
    settings.reports.mkdir(parents=True, exist_ok=True, mode=0o700)
    lake = Lake(settings.lake)
    records = Records(settings.reports, lake, suites, read_secret(settings.signing_key_file))
    if records.public_key not in settings.lake.verdict_keys:
        raise ConfigError(
            "is not among the trusted keys, so no reader would accept a verdict",
            field="signing_key_file",
            value=records.public_key,
            hint="add this public key to lake.verdict_keys",
        )
    warm = _start_gate(lambda: Gate(suites, lake, SuiteRunner(suites), records, hook_identifier(secret)))
    restored = _start_restoring(records, list(suites))
    registry = CollectorRegistry()
    verdicts = Counter("tidemill_validations", "Verdicts of the gate.", ["repository", "verdict"], registry=registry)
    seconds = Histogram("tidemill_validation_seconds", "Seconds to reach a verdict.", registry=registry)

    app = FastAPI(title="tidemill validation", redirect_slashes=False, docs_url=None, redoc_url=None, openapi_url=None)
    add_metrics(app, token_of(settings.listen), registry)

    @app.get("/readyz")
    def readyz() -> JSONResponse:  # pyright: ignore[reportUnusedFunction] - registered by the decorator
        if not warm.done():
            return JSONResponse({"status": "starting"}, 503)
        if error := warm.exception():
            return JSONResponse({"status": "failed", "error": str(error)}, 503)
        if not restored.is_set():
            return JSONResponse({"status": "restoring verdicts"}, 503)
        return JSONResponse({"status": "ok", "suites": {key: suite.name for key, suite in suites.items()}})

    @app.post("/hooks/lakefs")
    async def hook(  # pyright: ignore[reportUnusedFunction] - registered by the decorator
        request: Request, given: Annotated[str | None, Header(alias=HOOK_HEADER)] = None
    ) -> JSONResponse:
        if not token_matches(given, secret):
            raise HTTPException(401, "a valid hook secret is required")
        event = _event(await _body(request))
        started = time.monotonic()
        try:
            decision = await run_in_threadpool(lambda: warm.result(_WARM_UP_LIMIT).decide(event))
        except TidemillError as error:
            _log.error("no verdict", extra={"repository": event.repository_id, "error": str(error)})
            verdicts.labels(event.repository_id, "none").inc()
            return JSONResponse({"success": False, "error": str(error)}, 503)
        seconds.observe(time.monotonic() - started)
        verdicts.labels(event.repository_id, "accepted" if decision.success else "refused").inc()
        _log.info(
            "verdict",
            extra={
                "event": event.event_type,
                "repository": event.repository_id,
                "commit": event.commit_id,
                "success": decision.success,
                "reasons": [reason.message for reason in decision.reasons],
            },
        )
        return JSONResponse(_json_safe(decision.to_json()), 200 if decision.success else 422)

    return app


def _start_gate(create: Callable[[], Gate]) -> Future[Gate]:
    gate: Future[Gate] = Future()

    def start() -> None:
        try:
            gate.set_result(create())
        except BaseException as error:  # noqa: BLE001 - passed on through the future
            _log.exception("the gate cannot start, so it refuses all operations")
            gate.set_exception(error)

    threading.Thread(target=start, name="gate-start", daemon=True).start()
    return gate


def _start_restoring(records: Records, repositories: Sequence[str]) -> threading.Event:
    """Restore the signed verdicts now, and then regularly; return an event that is set after the first time."""
    done = threading.Event()

    def restore() -> None:
        while True:
            failed = False
            for repository in repositories:
                try:
                    if number := records.restore(repository):
                        _log.info("restored verdicts", extra={"repository": repository, "verdicts": number})
                except Exception as error:  # noqa: BLE001 - one failed attempt must not end the thread
                    failed = True
                    _log.warning("cannot restore verdicts", extra={"repository": repository, "error": str(error)})
            if not failed:
                done.set()
            time.sleep(_RESTORE_RETRY if failed else _RESTORE_EVERY)

    threading.Thread(target=restore, name="restore-verdicts", daemon=True).start()
    return done


async def _body(request: Request) -> bytes:
    body = b""
    async for block in request.stream():
        body += block
        if len(body) > _BODY_LIMIT:
            raise HTTPException(413, f"the event must have at most {_BODY_LIMIT} bytes")
    return body


def _event(body: bytes) -> Event:
    try:
        return Event.model_validate_json(body)
    except ValidationError as error:
        raise HTTPException(400, f"not a lakeFS event ({error.error_count()} errors)") from None


def _json_safe(value: Any) -> Any:
    """Return `value` with values that JSON lacks (NaN, dates) as text."""
    if isinstance(value, dict):
        return {str(key): _json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_safe(item) for item in value]
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
