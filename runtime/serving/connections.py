"""The server below the application: uvicorn, with bounds on clients which take their time, and a soft end."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

import uvicorn
from tidemill.runtime.serving.binding import BACKLOG
from tidemill.runtime.serving.settings import ServingSettings
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Server", "server_of"]

_HEAD_BYTES = 64 * 1024


class _Config(uvicorn.Config):
    most_connections: int


class _Whole:
    """A transport which sends the head of an answer together with what follows it.

    uvicorn writes the two one after the other, and each would be a call into the kernel and a packet of its own.
    """

    __slots__ = ("_flush_soon", "_head", "_transport", "is_closing")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._head: bytes | None = None
        self._flush_soon = functools.partial(loop.call_soon, self._flush)
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send `data`, or keep it for the moment where it is a head."""
        if self._head is not None:
            self._head, data = None, self._head + data
        elif data.endswith(b"\r\n\r\n") and data.startswith(b"HTTP/1."):
            self._head = data
            self._flush_soon()
            return
        self._transport.write(data)

    def close(self) -> None:
        """Close it after what was written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head is not None:
            self._head, head = None, self._head
            self._transport.write(head)


class _Protocol(HttpToolsProtocol):
    """A connection whose next request must have a whole head within a time and a size.

    uvicorn bounds neither: a client which sends a byte now and then would hold its connection for ever.
    """

    head_since: float | None
    head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(cast("asyncio.Transport", _Whole(transport, self.loop)))
        self.head_since = self.loop.time()
        if isinstance(self.config, _Config) and len(self.connections) > self.config.most_connections:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.head_since is not None:
            self.head_bytes += len(data)
            if self.head_bytes > _HEAD_BYTES and self._still_in_head(data):
                return
        super().data_received(data)

    def _still_in_head(self, data: bytes) -> bool:
        """Close the connection if `data` does not even end the head."""
        if b"\r\n\r\n" in data:
            return False
        self.send_400_response("The head of the request is too long.")
        return True

    def eof_received(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride] - asyncio's may say to go on
        """Answer a client which has said all it will and listens still; then close."""
        cycle = getattr(self, "cycle", None)  # None before the first request
        if cycle is None or cycle.more_body or cycle.response_complete:
            return False
        cycle.keep_alive = False
        return True

    def on_message_begin(self) -> None:
        self.head_since = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self.head_since, self.head_bytes = None, 0
        super().on_headers_complete()


class Server(uvicorn.Server):
    """Serves until SIGTERM or SIGINT; then says for a while that it is not ready, and answers what is under way.

    Args:
        config: uvicorn's.
        settings: ours.
        draining: called at the first signal.
    """

    def __init__(self, config: _Config, settings: ServingSettings, draining: Callable[[], None]) -> None:
        super().__init__(config)
        self._settings = settings
        self._draining = draining
        self._drain_until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Begin to end; a second signal does not wait for the drain."""
        self._draining()
        if self._settings.drain_seconds and self._drain_until is None:
            self._drain_until = time.monotonic() + self._settings.drain_seconds
        else:
            self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Look after the connections, ten times a second."""
        if self._drain_until is not None and time.monotonic() >= self._drain_until:
            self.should_exit = True
        if counter % 5 == 0:
            late = asyncio.get_running_loop().time() - self._settings.limits.header_seconds
            for connection in list(self.server_state.connections):
                since = getattr(connection, "head_since", None)
                if since is not None and since < late and not connection.transport.is_closing():
                    connection.transport.abort()
        return await super().on_tick(counter)


def server_of(app: Any, settings: ServingSettings, *, grace: int) -> Server:
    """Return the server of `app`; `grace` seconds are given to answers which are under way at its end."""
    listen = settings.listen
    config = _Config(
        app,
        host=listen.host,
        port=listen.port,
        loop="uvloop",
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # What a client says of where it comes from is believed by nothing here.
        proxy_headers=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=grace,
        ssl_certfile=listen.tls_cert_file,
        ssl_keyfile=listen.tls_key_file,
    )
    config.most_connections = settings.limits.connections

    def draining() -> None:
        server = getattr(app.state, "server", None)
        if server is not None:
            server.state.draining = True

    return Server(config, settings, draining)
