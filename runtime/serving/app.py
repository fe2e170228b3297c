"""The model server's HTTP: `/invocations`, `/labels`, `/healthz`, `/readyz`, `/metrics`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from threadpoolctl import threadpool_limits
from tidemill.runtime.capture import LABELS, write_segment
from tidemill.runtime.ids import uuid7
from tidemill.runtime.service import add_metrics, token_matches, token_of
from tidemill.runtime.serving.contract import Batch, parse_json
from tidemill.runtime.serving.follower import Follower
from tidemill.runtime.serving.labels import label_table
from tidemill.runtime.serving.metrics import ServingMetrics
from tidemill.runtime.serving.model import ServedModel, VersionInfo, load, preload
from tidemill.runtime.serving.problems import Problem
from tidemill.runtime.serving.settings import ServingSettings
from tidemill.runtime.serving.source import Source
from tidemill.runtime.serving.writer import Captured, CaptureWriter

__all__ = ["ModelServer", "create_app"]

_log = logging.getLogger(__name__)
_RETRY = {"Retry-After": "5"}


@dataclass
class _Call:
    """What is known of one request while it is answered."""

    request_id: str
    received_at: datetime
    started: float
    client_request_id: str | None = None
    version: str = ""
    rows: int = 0


class ModelServer:
    """The parts of the server, and the routes which use them."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self._key = token_of(settings.listen)
        self.metrics = ServingMetrics(settings.model)
        source = Source(settings)
        self.follower = Follower(
            source,
            partial(load, code_root=source.folder),
            poll_seconds=settings.poll_seconds,
            changed=self._followed,
        )
        self.writer = CaptureWriter(
            settings.capture, dropped=self.metrics.dropped.inc, written=self.metrics.captured.inc
        )
        # A model call holds a core; more threads than cores only wait for each other.
        self._pool = ThreadPoolExecutor(
            max_workers=max(2, os.cpu_count() or 1),
            thread_name_prefix="model",
            initializer=threadpool_limits,
            initargs=(1,),
        )

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncGenerator[None]:
        """Start the threads; at the end, after the last answer, write what is captured."""
        self.writer.start()
        self.follower.start()
        yield
        await asyncio.to_thread(self.follower.stop)
        self._pool.shutdown()
        await asyncio.to_thread(self.writer.close)

    async def invocations(self, request: Request) -> Response:
        """Answer with the predictions for the rows in the body."""
        return await self._answer(request, self._predict, counted=True)

    async def labels(self, request: Request) -> Response:
        """Keep the labels in the body; answered when they are on the disk."""
        return await self._answer(request, self._label, counted=False)

    def readyz(self) -> Response:
        """Tell which version serves; 503 without one."""
        follower, settings = self.follower, self._settings
        state: dict[str, Any] = {
            "ready": follower.current is not None,
            "model": settings.model,
            "alias": settings.alias,
            "registry": {None: "unknown", True: "reachable", False: "unreachable"}[follower.reachable],
        }
        if follower.current is not None:
            state |= _lineage(follower.current)
        if follower.failure is not None:
            failure = follower.failure
            state["error"] = f"version {failure.info.version} cannot serve: {failure.error}"
        elif follower.trouble:
            state["error"] = follower.trouble
        elif follower.missing:
            state["error"] = f"the registry has no alias {settings.alias} of {settings.model}"
        return _json(state, 200 if state["ready"] else 503, {} if state["ready"] else _RETRY)

    def _followed(self, follower: Follower) -> None:
        self.metrics.followed(follower)
        if follower.missing and follower.current is None:
            # While the first model is being trained there is time.
            preload()

    async def _answer(self, request: Request, work: Callable[[_Call, bytes], Response], *, counted: bool) -> Response:
        call = _Call(str(uuid7()), datetime.now(UTC), time.perf_counter())
        try:
            self._admit(request)
            call.client_request_id = _client_id(request)
            body = await self._body(request)
            response = await asyncio.get_running_loop().run_in_executor(self._pool, work, call, body)
            response.headers["X-Request-Id"] = call.request_id
        except Problem as problem:
            response = problem.response(call.request_id, call.client_request_id)
        except ClientDisconnect:
            response = Problem(400, "the client left").response(call.request_id)
        except Exception:  # noqa: BLE001 - a model may raise anything; the client still gets a document
            _log.exception("a request failed", extra={"request_id": call.request_id})
            response = Problem(500, "the model failed on this request").response(
                call.request_id, call.client_request_id
            )
        if counted:
            seconds = time.perf_counter() - call.started
            self.metrics.answered(version=call.version, code=response.status_code, seconds=seconds, rows=call.rows)
        return response

    def _admit(self, request: Request) -> None:
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key")
        if not token_matches(given, self._key):
            raise Problem(401, "a valid API key is needed", headers={"WWW-Authenticate": "Bearer"})

    async def _body(self, request: Request) -> bytes:
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Problem(415, f"the body must be application/json, not {kind[:100]}")
        limits = self._settings.limits
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(limits.body_seconds):
                async for part in request.stream():
                    size += len(part)
                    if size <= limits.body_bytes:
                        parts.append(part)
                    else:
                        # Read on for a while: a client still sending would not see the answer.
                        parts.clear()
                        if size > 4 * limits.body_bytes:
                            break
        except TimeoutError:
            raise Problem(408, "the body did not come in time", headers={"Connection": "close"}) from None
        if size > limits.body_bytes:
            raise Problem(413, f"the body is larger than {limits.body_bytes} bytes", headers={"Connection": "close"})
        return b"".join(parts)

    def _predict(self, call: _Call, body: bytes) -> Response:
        # Taken once: a swap meanwhile does not touch this request.
        model = self.follower.current
        if model is None:
            settings = self._settings
            raise Problem(503, f"no version of {settings.model} serves as {settings.alias} yet", headers=_RETRY)
        call.version = model.info.version
        batch: Batch = model.contract.batch(parse_json(body), self._settings.limits.rows)
        call.rows = batch.rows
        predictions = model.predict(batch)
        self.writer.take(Captured(call.request_id, call.client_request_id, call.received_at, model, batch, predictions))
        answer: dict[str, Any] = {
            "predictions": predictions,
            "model": model.info.model,
            "version": model.info.version,
            "request_id": call.request_id,
        }
        if call.client_request_id is not None:
            answer["client_request_id"] = call.client_request_id
        return _json(answer, 200, {"X-Tidemill-Model-Version": model.info.version})

    def _label(self, call: _Call, body: bytes) -> Response:
        table = label_table(parse_json(body), self._settings.limits.rows)
        try:
            write_segment(table, self._settings.capture.directory, LABELS)
        except OSError as error:
            _log.error("labels could not be written", extra={"request_id": call.request_id, "error": str(error)})
            raise Problem(503, "the labels could not be kept; send them again", headers=_RETRY) from None
        self.metrics.labels.inc(table.num_rows)
        return _json({"accepted": table.num_rows, "request_id": call.request_id}, 200, {})


def _lineage(model: ServedModel) -> dict[str, Any]:
    info: VersionInfo = model.info
    return {
        "version": info.version,
        "run_id": info.run_id,
        "loaded_at": model.loaded_at.isoformat(timespec="milliseconds"),
        "lake_repository": info.tags.get("tidemill.lake.repository"),
        "lake_commit": info.tags.get("tidemill.lake.commit"),
        "git_commit": info.tags.get("tidemill.git.commit"),
    }


def _client_id(request: Request) -> str | None:
    given = request.headers.get("x-request-id")
    if given is not None and not (0 < len(given) <= 128 and given.isascii() and given.isprintable()):
        raise Problem(400, "x-request-id: wants 1 to 128 printable ASCII characters")
    return given


def _json(document: dict[str, Any], status: int, headers: dict[str, str]) -> Response:
    return Response(
        json.dumps(document, allow_nan=False), status_code=status, headers=headers, media_type="application/json"
    )


def create_app(settings: ServingSettings) -> FastAPI:
    """Return the app; its threads start with it.

    Raises:
        TidemillError: a secret cannot be read.
    """
    server = ModelServer(settings)
    app = FastAPI(title=f"tidemill: {settings.model}", lifespan=server.lifespan, openapi_url=None)
    app.state.server = server
    app.add_api_route("/invocations", server.invocations, methods=["POST"], response_model=None)
    app.add_api_route("/labels", server.labels, methods=["POST"], response_model=None)
    app.add_api_route("/readyz", server.readyz, response_model=None)
    add_metrics(app, token_of(settings.listen), server.metrics.registry)

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, StarletteHTTPException)  # noqa: S101 - registered for that alone
        return Problem(error.status_code, str(error.detail), headers=error.headers).response()

    app.add_exception_handler(StarletteHTTPException, refused)
    return app
