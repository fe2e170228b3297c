"""uvicorn connections with the fast path and limits for slow clients.

The only module that uses private parts of uvicorn; `server` imports it only with the uvicorn versions that have them.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from typing import Any, cast

import uvicorn
from httptools import HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ...common.host_names import HostNames
from ..app import App
from ..settings import ServingSettings
from .draining_server import DrainingServer
from .fast_path import FastPathRequest
from .request_handler import RequestHandler

_HEAD_BYTES = 64 * 1024
_SWEEP_TICKS = 5  # of 0.1 s


class _Config(uvicorn.Config):
    max_connections: int
    host_names: HostNames
    fast_paths: Mapping[bytes, tuple[str, RequestHandler]]


class _SingleWriteTransport:
    """A transport that sends the head of a response together with the start of its body.

    uvicorn writes head and body separately, which costs a system call and a packet each.
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
        """Send `data`; hold it until the next write if it is the head of a response."""
        if self._head is not None:
            self._head, data = None, self._head + data
        elif data.endswith(b"\r\n\r\n") and data.startswith(b"HTTP/1."):
            self._head = data
            self._flush_soon()
            return
        self._transport.write(data)

    def write_response(self, response: bytes) -> None:
        """Send a complete response."""
        self._flush()
        self._transport.write(response)

    def close(self) -> None:
        """Close the transport after the pending data."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head is not None:
            self._head, head = None, self._head
            self._transport.write(head)


class _Connection(HttpToolsProtocol):
    """A connection that answers usual requests of the hot routes itself, and limits heads and the framing of bodies.

    uvicorn does not limit heads: a client that sends a byte now and then could keep its connection forever.
    """

    head_since: float | None
    head_bytes = 0
    framing_bytes = 0
    idle_since: float | None = None
    _request: FastPathRequest | None = None
    _single_write: _SingleWriteTransport

    def __init__(self, config: uvicorn.Config, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self._fast_paths = config.fast_paths if isinstance(config, _Config) else {}
        self._host_names = config.host_names if isinstance(config, _Config) else HostNames()

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._single_write = _SingleWriteTransport(transport, self.loop)
        super().connection_made(cast("asyncio.Transport", self._single_write))
        self.head_since = self.loop.time()
        if isinstance(self.config, _Config) and len(self.connections) > self.config.max_connections:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._request is not None:
            self._request.disconnect()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.head_since is not None:
            self.head_bytes += len(data)
            if self.head_bytes > _HEAD_BYTES and self._refuse_long_head(data):
                return
        else:
            # The parser reports neither chunk extensions nor an incomplete trailer, which it holds in memory.
            self.framing_bytes += len(data)
        super().data_received(data)
        if self.framing_bytes > _HEAD_BYTES:
            self.transport.abort()

    def _refuse_long_head(self, data: bytes) -> bool:
        """Close the connection unless `data` ends the head."""
        if b"\r\n\r\n" in data:
            return False
        self.send_400_response("The head of the request is too long.")
        return True

    def eof_received(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride] - asyncio's may return a bool
        """Answer a client that closed only its sending side; then close."""
        cycle = getattr(self, "cycle", None)  # None before the first request
        if cycle is None or cycle.more_body or cycle.response_complete:
            return False
        cycle.keep_alive = False
        return True

    def on_message_begin(self) -> None:
        self.head_since, self.idle_since = self.loop.time(), None
        # No scope yet: `_continue_as_asgi` creates it for a request that needs one.
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_headers_complete(self) -> None:
        self.head_since, self.head_bytes, self.framing_bytes = None, 0, 0
        parser = self.parser
        if (route := self._fast_paths.get(self.url)) is not None and parser is not None and self._is_usual(parser):
            path, handler = route
            headers = dict(self.headers)
            self._request = FastPathRequest(self, handler, path, headers, keep_alive=parser.should_keep_alive())
            self.cycle = cast("RequestResponseCycle", self._request)
            self._request.start()
        else:
            self._request = None
            self._continue_as_asgi()

    def on_body(self, body: bytes) -> None:
        self.framing_bytes = 0
        if self._request is None:
            super().on_body(body)
        else:
            self._request.feed(body)

    def on_message_complete(self) -> None:
        self.framing_bytes = 0
        if self._request is None:
            super().on_message_complete()
        else:
            self._request.finish_body()

    def send(self, response: bytes, *, last: bool) -> None:
        """Send a complete response; close the connection afterwards if it is the last."""
        if self.transport.is_closing():
            return
        self._single_write.write_response(response)
        if last:
            self.transport.close()
        if last or self.pipeline or self.flow.read_paused:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1
            # The server sweeps idle connections, instead of a timer for each response.
            self.idle_since = self.loop.time()

    def _is_usual(self, parser: HttpRequestParser) -> bool:
        """Return whether the request can be answered immediately and needs nothing that only uvicorn has."""
        return (
            (self.cycle is None or self.cycle.response_complete)  # pyright: ignore[reportUnnecessaryComparison] - it is None at first
            and not self.expect_100_continue
            and parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and not parser.should_upgrade()
            and not self.transport.is_closing()
            # The application refuses a foreign Host header.
            and self._host_names.problem_of(self.headers, "1.1") is None
        )

    def _continue_as_asgi(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)  # the list that the scope holds
        super().on_headers_complete()


class FastPathServer(DrainingServer):
    """Serves `app` with the fast path.

    Args:
        app: the application and its fast paths.
        settings: of the server.
        options: for `uvicorn.Config`.
    """

    def __init__(self, app: App, settings: ServingSettings, options: Mapping[str, Any]) -> None:
        config = _Config(app, http=_Connection, **options)
        config.max_connections = settings.limits.connections
        config.fast_paths = app.fast_paths
        config.host_names = HostNames(settings.listen.hosts)
        super().__init__(config, app, settings.drain_seconds)
        self._header_seconds = settings.limits.header_seconds

    async def on_tick(self, counter: int) -> bool:
        """Close late and idle connections, twice a second."""
        if counter % _SWEEP_TICKS == 0:
            now = asyncio.get_running_loop().time()
            late, idle = now - self._header_seconds, now - self.config.timeout_keep_alive
            for connection in list(self.server_state.connections):
                if not isinstance(connection, _Connection) or connection.transport.is_closing():
                    continue
                if connection.head_since is not None and connection.head_since < late:
                    connection.transport.abort()
                elif connection.idle_since is not None and connection.idle_since < idle:
                    connection.transport.close()
        return await super().on_tick(counter)
