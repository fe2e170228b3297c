"""The routes outside the hot path: probes, metrics, pages, and the metadata of the Open Inference Protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.routing import Route

from .. import page
from ..model_server import ModelServer
from ..protocols import open_inference
from ..versions.model import ServedModel
from .admission import forbidden
from .content_negotiation import JSON
from .key_file import Use
from .openapi.document import openapi

_RETRY = {"Retry-After": "5"}


def add_routes(app: FastAPI) -> None:
    """Add all routes to `app`, whose `state.server` is the running ModelServer."""
    readers: list[Any] = [Depends(_require("read"))]
    # The contract of the model, which callers need too.
    callers: list[Any] = [Depends(_require("predict", "read"))]
    for path, endpoint in (("/healthz", _healthz), ("/readyz", _readyz), ("/", _page), ("/docs", _page)):
        app.add_api_route(path, endpoint, response_model=None)
    app.add_api_route("/v2/health/live", _live, response_model=None)
    app.add_api_route("/v2/health/ready", _v2_ready, response_model=None)
    for path in ("/ping", "/health"):
        app.add_api_route(path, _ping, response_model=None)
    for path, endpoint in (("/metrics", _metrics), ("/status", _status)):
        app.add_api_route(path, endpoint, dependencies=readers, response_model=None)
    for path, endpoint in (("/openapi.json", _openapi), ("/v2", _v2), ("/version", _version)):
        app.add_api_route(path, endpoint, dependencies=callers, response_model=None)
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        app.add_api_route(path, _v2_model, dependencies=callers, response_model=None)
        app.add_api_route(f"{path}/ready", _v2_model_ready, dependencies=callers, response_model=None)
    # The application answers POST on these paths before the router; the routes answer 405 to other methods.
    for path in ("/invocations", "/predict", "/labels"):
        app.router.routes.append(Route(path, _forward, methods=["POST"]))
    app.router.routes.append(Route("/v2/models/{name}/infer", _infer, methods=["POST"]))
    app.router.routes.append(Route("/v2/models/{name}/versions/{version}/infer", _infer, methods=["POST"]))


def _server(request: Request) -> ModelServer:
    return request.app.state.server


def _require(*uses: Use) -> Callable[[Request], None]:
    """Return a check that the key of a request has one of `uses`."""

    def check(request: Request) -> None:
        key = _server(request).keys.find(_header(request, "authorization"), _header(request, "x-api-key"))
        if key is None:
            raise HTTPException(401, "a valid API key is required", headers={"WWW-Authenticate": "Bearer"})
        if not set(uses) & set(key.may):
            raise HTTPException(403, forbidden(key, *uses))

    return check


def _header(request: Request, name: str) -> bytes | None:
    value = request.headers.get(name)
    return None if value is None else value.encode("latin-1")


def _json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(document), status_code=status, headers=headers, media_type="application/json")


async def _healthz() -> Response:
    return _json({"status": "ok"})


async def _readyz(request: Request) -> Response:
    state = _server(request).state
    return _json(state.readiness(), 200 if state.ready else 503, {} if state.ready else _RETRY)


async def _ping(request: Request) -> Response:
    # As MLflow's scoring server, which is not healthy until it has a model.
    return Response("\n", status_code=200 if _server(request).state.ready else 404, media_type=JSON)


async def _version(_: Request) -> Response:
    # Clients of MLflow's scoring server select its protocol by the version of MLflow.
    return Response(metadata.version("mlflow-skinny"), media_type=JSON)


def _metrics(request: Request) -> Response:
    return Response(generate_latest(_server(request).registry), media_type=CONTENT_TYPE_LATEST)


async def _status(request: Request) -> Response:
    return _json(_server(request).state.status(), headers={"Cache-Control": "no-store"})


async def _page(request: Request) -> Response:
    status, headers, body = page.pages()[request.url.path].respond(request.headers.get("if-none-match"))
    return Response(body, status_code=status, headers=dict(headers))


async def _openapi(request: Request) -> Response:
    server = _server(request)
    return _json(openapi(server.alias_watcher.current, server.settings))


async def _live() -> Response:
    return _json({"live": True})


async def _v2_ready(request: Request) -> Response:
    ready = _server(request).state.ready
    return _json({"ready": ready}, 200 if ready else 503, {} if ready else _RETRY)


async def _v2(_: Request) -> Response:
    return _json(open_inference.server_metadata())


def _requested_model(request: Request) -> ServedModel:
    """Return the model that the path names.

    Raises:
        HTTPException: the server serves another model or version (404), or none yet (503).
    """
    server = _server(request)
    name, version = request.path_params["name"], request.path_params.get("version")
    model = server.alias_watcher.current
    if name != server.settings.model:
        raise HTTPException(404, f"this server serves {server.settings.model}")
    if model is None:
        raise HTTPException(503, f"no version of {name} is served yet", headers=_RETRY)
    if version is not None and version != model.info.version:
        raise HTTPException(404, f"this server serves only version {model.info.version} of {name}")
    return model


async def _v2_model(request: Request) -> Response:
    return _json(open_inference.model_metadata(_requested_model(request)))


async def _v2_model_ready(request: Request) -> Response:
    model = _requested_model(request)
    ready = _server(request).state.ready
    return _json({"name": model.info.model, "ready": ready}, 200 if ready else 503)


class _Forward(Response):
    """Forwards a request from the router to the handler of `path`."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await scope["app"].handlers[self._path](scope, receive, send)


async def _forward(request: Request) -> Response:
    return _Forward(request.url.path)


async def _infer(request: Request) -> Response:
    # A path with a version or another name: check both, then forward to the handler of the one model.
    _require("predict")(request)
    return _Forward(f"/v2/models/{_requested_model(request).info.model}/infer")
