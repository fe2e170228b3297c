"""A uvicorn server with limits for the heads of requests, for slow clients and for the number of connections.

Only this module uses uvicorn's private class for HTTP/1.1 with h11, so pyproject.toml pins uvicorn's minor version.
h11 limits the memory for an incomplete head, chunk header or trailer. uvicorn's other parser, httptools, does not.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_BYTES = 64 * 1024
"""Maximum size of the head of a request, with all its headers."""

_HEADER_SECONDS = 10.0
_CONNECTIONS = 1000
_SWEEP_TICKS = 5  # of 0.1 s


class LimitedConnection(H11Protocol):
    """A connection that the server can close if it waits too long for a request's head.

    Attributes:
        waiting_since: when the connection began to wait for a head, on the loop's clock.
    """

    waiting_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - as in uvicorn
        """Accept the connection, unless there are too many."""
        super().connection_made(transport)
        self.waiting_since = self.loop.time()
        if len(self.connections) > _CONNECTIONS:
            transport.abort()

    def on_response_complete(self) -> None:
        """Record the time, and handle the response as uvicorn does."""
        self.waiting_since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that is not HTTP or too long; only close the connection if a response has started."""
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:
            self.transport.abort()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:  # pyright: ignore[reportUnnecessaryComparison] - it is None at first
            # Tell the application that still reads this request that the client left; its answer is dropped.
            cycle.disconnected = True
            cycle.message_event.set()

    def waits(self) -> bool:
        """Return whether the server waits for a head, or for the rest of a request that is already answered."""
        answered = self.cycle is None or self.cycle.response_complete  # pyright: ignore[reportUnnecessaryComparison] - it is None at first
        return answered and not self.transport.is_closing()


class LimitedServer(uvicorn.Server):
    """A uvicorn server that applies these limits.

    Args:
        app: the application, or the import string of its factory.
        options: for `uvicorn.Config`.
    """

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=LimitedConnection,
                h11_max_incomplete_event_size=HEAD_BYTES,
                ws="none",
                access_log=False,
                server_header=False,
                **options,
            )
        )

    async def on_tick(self, counter: int) -> bool:
        """Close late connections, twice a second."""
        if counter % _SWEEP_TICKS == 0:
            late = asyncio.get_running_loop().time() - _HEADER_SECONDS
            for connection in list(self.server_state.connections):
                if isinstance(connection, LimitedConnection) and connection.waits() and connection.waiting_since < late:
                    connection.transport.abort()
        return await super().on_tick(counter)
