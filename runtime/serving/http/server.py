"""The server below the application: uvicorn, with bounds on clients which take their time, and a soft end."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, cast

import uvicorn
from httptools import HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ..settings import ServingSettings
from .fast_path import Straight
from .listen_socket import BACKLOG
from .request_handler import Exchange

__all__ = ["Server", "server_of"]

_HEAD_BYTES = 64 * 1024


class _Config(uvicorn.Config):
    most_connections: int
    straight: Mapping[bytes, tuple[str, Exchange]]


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

    def write_whole(self, answer: bytes) -> None:
        """Send `answer`, to which nothing belongs that follows."""
        self._flush()
        self._transport.write(answer)

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

    uvicorn bounds neither: a client which sends a byte now and then would hold its connection for ever. And it answers
    the usual requests of the hot routes itself, without a task and messages for each.
    """

    head_since: float | None
    head_bytes = 0
    idle_since: float | None = None
    _straight: Straight | None = None
    _whole: _Whole

    def __init__(self, config: uvicorn.Config, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self._hot = config.straight if isinstance(config, _Config) else {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._whole = _Whole(transport, self.loop)
        super().connection_made(cast("asyncio.Transport", self._whole))
        self.head_since = self.loop.time()
        if isinstance(self.config, _Config) and len(self.connections) > self.config.most_connections:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._straight is not None:
            self._straight.leave()
        super().connection_lost(exc)

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
        self.head_since, self.idle_since = self.loop.time(), None
        # No scope yet: where the request turns out to need one, `_on` makes it.
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_headers_complete(self) -> None:
        self.head_since, self.head_bytes = None, 0
        parser = self.parser
        if (hot := self._hot.get(self.url)) is not None and parser is not None and self._is_usual(parser):
            path, exchange = hot
            self._straight = Straight(self, exchange, path, dict(self.headers), keep_alive=parser.should_keep_alive())
            self.cycle = cast("RequestResponseCycle", self._straight)
            self._straight.begin()
        else:
            self._straight = None
            self._on()

    def on_body(self, body: bytes) -> None:
        if self._straight is None:
            super().on_body(body)
        else:
            self._straight.feed(body)

    def on_message_complete(self) -> None:
        if self._straight is None:
            super().on_message_complete()
        else:
            self._straight.end()

    def send(self, answer: bytes, *, last: bool) -> None:
        """Send the whole of an answer, and close the connection after it where it is the last."""
        if self.transport.is_closing():
            return
        self._whole.write_whole(answer)
        if last:
            self.transport.close()
        if last or self.pipeline or self.flow.read_paused:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1
            # The server looks at this now and then, instead of a timer for each answer.
            self.idle_since = self.loop.time()

    def _is_usual(self, parser: HttpRequestParser) -> bool:
        """Tell whether the request can be answered at once, and needs nothing which only uvicorn has."""
        return (
            (self.cycle is None or self.cycle.response_complete)  # pyright: ignore[reportUnnecessaryComparison] - it is None at first
            and not self.expect_100_continue
            and parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and not parser.should_upgrade()
            and not self.transport.is_closing()
        )

    def _on(self) -> None:
        """Go on uvicorn's way."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)  # the list which the scope holds
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
            now = asyncio.get_running_loop().time()
            late, idle = now - self._settings.limits.header_seconds, now - self.config.timeout_keep_alive
            for connection in list(self.server_state.connections):
                if not isinstance(connection, _Protocol) or connection.transport.is_closing():
                    continue
                if connection.head_since is not None and connection.head_since < late:
                    connection.transport.abort()
                elif connection.idle_since is not None and connection.idle_since < idle:
                    connection.transport.close()
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
    config.straight = getattr(app, "straight", {})

    def draining() -> None:
        server = getattr(app.state, "server", None)
        if server is not None:
            server.state.draining = True

    return Server(config, settings, draining)
