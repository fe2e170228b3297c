"""The limit of request bodies in front of MLflow, which collects a body in memory and answers 500 if that fails."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from ..common.body_limit import declares_more

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class WholeBody:
    """An ASGI application that reads the body of each request before `app`, and refuses a body that is too large.

    Args:
        app: the application behind it.
        limit: bytes.
        seconds: time from the request's head to the end of its body.
    """

    def __init__(self, app: ASGIApp, *, limit: int, seconds: float) -> None:
        self._app = app
        self._limit = limit
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 408 or 413, or pass the request on with its body in one piece."""
        try:
            if declares_more(scope["headers"], self._limit):
                raise self._too_large()
            async with asyncio.timeout(self._seconds):
                body = await self._read(receive)
        except HTTPException as refusal:
            await answer(send, refusal.status_code, "INVALID_PARAMETER_VALUE", refusal.detail, close=True)
            return
        except TimeoutError:
            await answer(send, 408, "INVALID_PARAMETER_VALUE", "the body did not arrive in time", close=True)
            return
        if body is None:
            return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        del body

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, replay, send)

    async def _read(self, receive: Receive) -> bytes | None:
        """Return the body, or None if the client has left."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            body += message.get("body", b"")
            if len(body) > self._limit:
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the body must have at most {self._limit} bytes")


async def answer(
    send: Send,
    status: int,
    code: str,
    message: str,
    headers: Iterable[tuple[bytes, bytes]] = (),
    *,
    close: bool = False,
) -> None:
    """Answer in the form of MLflow's errors; `close` the connection, so that the rest of the body need not be read."""
    body = json.dumps({"error_code": code, "message": message}).encode()
    sent = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    if close:
        sent.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": body})
