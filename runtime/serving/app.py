"""The ASGI application of the model server: FastAPI, with the hot routes as bare ASGI in front of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from ..common.host_names import HostNames, refuse
from ..common.service import token_of
from .http.errors import Problem, mlflow_members
from .http.request_handler import Receive, RequestHandler, Scope, Send
from .http.routes import add_routes
from .model_server import ModelServer
from .settings import ServingSettings
from .telemetry.worker_status import WorkerStatuses


class App(FastAPI):
    """FastAPI, except that requests of the hot routes go directly to their handlers.

    Attributes:
        handlers: path -> handler of the hot route.
        fast_paths: raw path -> (path, handler), for connections with the fast path.
        host_names: the names under which clients may address the server.
    """

    host_names: HostNames
    handlers: Mapping[str, RequestHandler]
    fast_paths: dict[bytes, tuple[str, RequestHandler]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and (problem := self.host_names.problem_of(scope["headers"], scope["http_version"])):
            await refuse(send, *problem, mlflow_members(*problem))
        elif scope["type"] == "http" and scope["method"] == "POST" and (handler := self.handlers.get(scope["path"])):
            await handler(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def start_draining(self) -> None:
        """Report "not ready" from now on, if the application has started."""
        server: ModelServer | None = getattr(self.state, "server", None)
        if server is not None:
            server.state.draining = True


def create_app(
    settings: ServingSettings,
    statuses: WorkerStatuses | None = None,
    give_up: Callable[[str], None] = lambda _: None,
) -> App:
    """Return the application of one worker; it creates its parts when it starts.

    Args:
        settings: of the server.
        statuses: of all workers; None if there is only one.
        give_up: called with a sentence if the fixed version or folder can never serve.

    Raises:
        TidemillError: a secret cannot be read.
    """
    token_of(settings.listen)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        server = ModelServer(settings, statuses or WorkerStatuses(None), give_up)
        app.state.server = server
        assert isinstance(app, App)  # noqa: S101 - the application created below
        app.handlers = server.handlers()
        await server.start()
        app.fast_paths.update({path.encode(): (path, handler) for path, handler in app.handlers.items()})
        yield
        await server.stop()

    app = App(title=f"tidemill: {settings.model}", lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.handlers, app.fast_paths, app.host_names = {}, {}, HostNames(settings.listen.hosts)
    add_routes(app)

    async def answer_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, StarletteHTTPException)  # noqa: S101 - registered for this class only
        return Problem(error.status_code, str(error.detail), headers=error.headers).response(request.url.path)

    app.add_exception_handler(StarletteHTTPException, answer_error)
    return app
