"""The frame of every service: command line, JSON logs, bearer token, metrics and health.

Importing this module does not configure logging; `run` does.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hmac
import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import TidemillError
from .secrets import read_secret
from .settings import ListenSettings, ServiceSettings, load_settings

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response
    from prometheus_client import CollectorRegistry

_BODY_BYTES, _BODY_SECONDS = 1_000_000, 30.0
_NOT_STARTED = 3  # as uvicorn exits

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


def log_time(moment: float) -> str:
    """Return `moment`, in seconds since the epoch, for log lines: RFC 3339, UTC, milliseconds.

    >>> log_time(0.25)
    '1970-01-01T00:00:00.250Z'
    """
    return f"{_second(int(moment))}.{int(moment * 1000) % 1000:03d}Z"


@functools.lru_cache(maxsize=16)
def _second(moment: int) -> str:
    # There are many log lines per second.
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: time (UTC), level, logger, message, the `extra` fields, the exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return `record` as one line of JSON."""
        line: dict[str, Any] = {
            "time": log_time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({key: value for key, value in vars(record).items() if key not in _PLAIN})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def token_matches(given: str | None, expected: str) -> bool:
    """Compare two tokens in constant time; an empty token never matches."""
    if not given or not expected:
        return False
    return hmac.compare_digest(given.encode(), expected.encode())


def bearer(expected: str) -> Callable[[Request], None]:
    """Return a FastAPI dependency that answers 401 unless the request has `Authorization: Bearer <expected>`."""
    from fastapi import HTTPException, Request

    def check(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token_matches(given.strip(), expected):
            raise HTTPException(401, "a valid bearer token is required", headers={"WWW-Authenticate": "Bearer"})

    # FastAPI resolves the annotation, but cannot see a name imported inside this function.
    check.__annotations__["request"] = Request
    return check


def add_metrics(app: FastAPI, expected: str, registry: CollectorRegistry) -> None:
    """Add `/metrics` (Prometheus text format), protected by the bearer token, and `/healthz`, open to all."""
    from fastapi import Depends, Response
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    app.add_api_route("/metrics", metrics, dependencies=[Depends(bearer(expected))], response_model=None)
    app.add_api_route("/healthz", healthz)


def log_lines() -> None:
    """Log JSON lines to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("httpx", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def run(app: FastAPI, listen: ListenSettings, *, grace: int = 10) -> None:
    """Serve `app` at the address of `listen` until SIGTERM, with JSON logs on standard output.

    The server limits heads, bodies, slow clients and connections, and refuses foreign Host headers.
    """
    from .body_limit import BodyLimit
    from .host_names import HostCheck
    from .limited_server import LimitedServer

    log_lines()
    limited = HostCheck(BodyLimit(app, limit=_BODY_BYTES, seconds=_BODY_SECONDS), listen.hosts)
    server = LimitedServer(
        limited, host=listen.host, port=listen.port, log_config=None, timeout_graceful_shutdown=grace
    )
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(_NOT_STARTED)


def token_of(listen: ListenSettings) -> str:
    """Return the bearer token of `listen`."""
    return read_secret(listen.token_file)


L = TypeVar("L", bound=ServiceSettings)


def main(name: str, does: str, model: type[L], create_app: Callable[[L], FastAPI], *, grace: int) -> int:
    """Run the command `python -m tidemill.runtime.NAME --settings FILE`; return its exit code.

    Args:
        name: the service's package.
        does: its purpose, one sentence for `--help`.
        model: the model of its settings.
        create_app: creates its application.
        grace: seconds for open requests at SIGTERM; services are killed after ten.
    """
    parser = argparse.ArgumentParser(prog=f"tidemill.runtime.{name}", description=does)
    parser.add_argument("--settings", type=Path, required=True, help="JSON file with the settings")
    path: Path = parser.parse_args().settings
    try:
        settings = load_settings(path, model)
        app = create_app(settings)
    except TidemillError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    run(app, settings.listen, grace=grace)
    return 0
