"""Serves a model until SIGTERM: `python -m tidemill.runtime.serving --settings FILE`."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .settings import ServingSettings
    from .telemetry.worker_status import WorkerStatuses

# Set before any library starts a thread pool: on a busy machine, the pools of many processes slow everything down
# (one row of a tree model: 57 ms with the default pool, 1 ms with one thread).
for _pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_pool] = "1"
# No telemetry. The alias watcher retries a registry that is down, not MLflow's client.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"
os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "15"

_GRACE_SECONDS = 6


def main(argv: list[str] | None = None) -> int:
    """Run the server and return its exit code."""
    from ..common.errors import TidemillError
    from ..common.settings import load_settings
    from .settings import ServingSettings

    parser = argparse.ArgumentParser(prog="tidemill.runtime.serving", description="Serve a model from the registry.")
    parser.add_argument("--settings", type=Path, required=True, help="JSON file with the settings")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    try:
        settings = load_settings(arguments.settings, ServingSettings)
        if arguments.worker is not None:
            return _run_worker(settings, arguments.worker)
        if settings.workers > 1:
            return _run_parent(settings, arguments.settings)
        return _run_alone(settings)
    except TidemillError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


def _run_alone(settings: ServingSettings) -> int:
    from ..common.service import log_lines
    from .hide_pandas import hide_pandas_from_arrow

    hide_pandas_from_arrow()
    log_lines()
    _log_trust(settings)
    _serve(settings, None, _bind(settings))
    return 0


def _serve(settings: ServingSettings, statuses: WorkerStatuses | None, listening: socket.socket) -> None:
    """Serve until SIGTERM.

    Raises:
        UnfitError: the fixed version or folder can never serve.
    """
    from .app import create_app
    from .engines.errors import UnfitError
    from .http.server import create_server

    reasons: list[str] = []

    def give_up(reason: str) -> None:
        reasons.append(reason)
        server.should_exit = True

    server = create_server(create_app(settings, statuses, give_up), settings, grace=_GRACE_SECONDS)
    server.run(sockets=[listening])
    if reasons:
        raise UnfitError(reasons[0])


def _run_parent(settings: ServingSettings, file: Path) -> int:
    from ..common.service import log_lines
    from .workers import Workers

    log_lines()
    _log_trust(settings)
    grace = settings.drain_seconds + _GRACE_SECONDS + 2
    return Workers(file.absolute(), _bind(settings), settings.workers, grace).run()


def _run_worker(settings: ServingSettings, worker: str) -> int:
    from ..common.service import log_lines
    from .engines.errors import UnfitError
    from .telemetry.worker_status import WorkerStatuses
    from .workers import end_with_parent

    index, listening, lifeline, folder = worker.split(",", 3)
    end_with_parent(int(lifeline))
    log_lines()
    statuses = WorkerStatuses(Path(folder), int(index))
    try:
        _serve(settings, statuses, socket.socket(fileno=int(listening)))
    except UnfitError as error:
        # The parent ends the server, and reports it once for all workers.
        statuses.give_up(str(error))
    return 0


def _log_trust(settings: ServingSettings) -> None:
    if settings.trust:
        logging.getLogger(__name__).warning(
            "pickle is trusted: a version that is loaded can run any code of its author, as this server's user",
            extra={"model": settings.model, "trust": list(settings.trust)},
        )


def _bind(settings: ServingSettings) -> socket.socket:
    from ..common.errors import PlatformError
    from .http.listen_socket import bind_socket

    try:
        return bind_socket(settings.listen)
    except OSError as error:
        raise PlatformError(
            f"the server cannot listen on this address ({error.strerror})",
            field="listen",
            value=f"{settings.listen.host}:{settings.listen.port}",
            hint="free the port, or choose another",
        ) from None


if __name__ == "__main__":
    sys.exit(main())
