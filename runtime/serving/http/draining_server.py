"""A uvicorn server that first reports "not ready" at SIGTERM, and stops after the drain time."""

from __future__ import annotations

import threading
from types import FrameType

import uvicorn

from ..app import App


class DrainingServer(uvicorn.Server):
    """Serves `app` until SIGTERM or SIGINT, drains, and completes the requests in flight.

    Args:
        config: uvicorn's configuration of `app`.
        app: reports "not ready" while the server drains.
        drain_seconds: time between the first signal and the closing of the port.
    """

    def __init__(self, config: uvicorn.Config, app: App, drain_seconds: float) -> None:
        super().__init__(config)
        self._app = app
        self._drain_seconds = drain_seconds
        self._draining = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Start to drain; a second signal ends the drain."""
        self._app.start_draining()
        if self._drain_seconds and not self._draining:
            self._draining = True
            timer = threading.Timer(self._drain_seconds, self._stop)
            timer.daemon = True
            timer.start()
        else:
            self._stop()

    def _stop(self) -> None:
        self.should_exit = True
