"""Limits of request bodies: their size, also in chunks, and the time until they have arrived."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from .host_names import refuse


class BodyLimit:
    """An ASGI application that limits the body of each request to `app`.

    A body with a too large `Content-Length` is refused before it is read. Other bodies are counted while `app` reads
    them.

    Args:
        app: the application behind it, made with Starlette.
        limit: bytes.
        seconds: time from the request's head to the end of its body.
    """

    def __init__(self, app: Any, *, limit: int, seconds: float) -> None:
        self._app = app
        self._limit = limit
        self._seconds = seconds

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request.

        Raises:
            HTTPException: inside the application, which answers with its status.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if declares_more(scope["headers"], self._limit):
            await refuse(send, 413, self._too_large)
            return
        size, complete = 0, False
        deadline = asyncio.get_running_loop().time() + self._seconds

        async def limited() -> Any:
            nonlocal size, complete
            if complete:
                return await receive()  # waits for the client to leave
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise _refusal(408, "the body did not arrive in time") from None
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if size > self._limit:
                    raise _refusal(413, self._too_large)
            return message

        await self._app(scope, limited, send)

    @property
    def _too_large(self) -> str:
        return f"the body must have at most {self._limit} bytes"


def declares_more(headers: Iterable[tuple[bytes, bytes]], limit: int) -> bool:
    """Tell whether the `Content-Length` in `headers` is more than `limit` bytes, or is no number.

    >>> [declares_more([(b"content-length", value)], 10) for value in (b"10", b"11", b"-1")], declares_more([], 10)
    ([False, True, True], False)
    """
    declared = dict(headers).get(b"content-length", b"0")
    return not declared.isdigit() or int(declared) > limit


def _refusal(status: int, detail: str) -> Exception:
    from starlette.exceptions import HTTPException

    return HTTPException(status, detail, headers={"Connection": "close"})
