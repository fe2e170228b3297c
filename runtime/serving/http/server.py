"""The HTTP server: uvicorn with the fast path, or plain uvicorn if its version does not support the fast path."""

from __future__ import annotations

import logging
from typing import Any

import uvicorn

from ..app import App
from ..settings import ServingSettings
from .draining_server import DrainingServer
from .listen_socket import BACKLOG

_log = logging.getLogger(__name__)

FAST_PATH_UVICORN = "0.54"
"""The minor version of uvicorn whose private classes the fast path uses; pyproject.toml pins it."""


def create_server(app: App, settings: ServingSettings, *, grace: int) -> DrainingServer:
    """Return the server of `app`; `grace` is the time in seconds to complete requests when it stops."""
    listen = settings.listen
    options: dict[str, Any] = {
        "host": listen.host,
        "port": listen.port,
        "loop": "uvloop",
        "ws": "none",
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        # The server does not trust what clients say about their address.
        "proxy_headers": False,
        "date_header": False,
        "backlog": BACKLOG,
        "timeout_keep_alive": 75,
        "timeout_graceful_shutdown": grace,
        "ssl_certfile": listen.tls_cert_file,
        "ssl_keyfile": listen.tls_key_file,
    }
    if uvicorn.__version__.startswith(f"{FAST_PATH_UVICORN}."):
        from .uvicorn_internals import FastPathServer

        return FastPathServer(app, settings, options)
    _log.warning(
        "serving without the fast path and the limits of slow clients; install the uvicorn version that has them",
        extra={"uvicorn": uvicorn.__version__, "needed": f"{FAST_PATH_UVICORN}.*"},
    )
    # Unlike uvicorn's default parser, h11 limits heads and trailers.
    config = uvicorn.Config(app, http="h11", limit_concurrency=settings.limits.connections, **options)
    return DrainingServer(config, app, settings.drain_seconds)
