"""Requests as bytes, which no HTTP client would send."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

_TIMEOUT = 8.0


@dataclass(frozen=True)
class Answer:
    """A server's answer; `status` is 0 without a status line, for example after a closed connection."""

    status: int
    head: bytes
    body: bytes

    @property
    def statuses(self) -> int:
        """Return how many answers came on the connection."""
        return (self.head + b"\r\n\r\n" + self.body).count(b"HTTP/1.1 ")


def send(url: str, parts: bytes | Iterable[bytes], *, timeout: float = _TIMEOUT, limit: int = 1 << 20) -> Answer:
    """Send `parts` to the server at `url`, and read until it closes, answers no more, or sent `limit` bytes."""
    with connect(url, timeout) as stream:
        # A server may answer and close before it has read everything.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            for part in [parts] if isinstance(parts, bytes) else parts:
                stream.sendall(part)
        return read(stream, limit)


def connect(url: str, timeout: float = _TIMEOUT) -> socket.socket:
    """Open a connection to the server at `url`."""
    found = urlsplit(url)
    return socket.create_connection((found.hostname or "", found.port or 0), timeout=timeout)


def read(stream: socket.socket, limit: int = 1 << 20) -> Answer:
    """Read an answer from `stream`."""
    got = b""
    with contextlib.suppress(ConnectionResetError, TimeoutError):
        while len(got) < limit and (block := stream.recv(65536)):
            got += block
    head, _, body = got.partition(b"\r\n\r\n")
    status = head.split(b"\r\n", 1)[0].split(b" ")
    number = int(status[1]) if len(status) > 1 and status[0].startswith(b"HTTP/") and status[1].isdigit() else 0
    return Answer(number, head, body)


def request(url: str, target: str | bytes, *headers: bytes, method: bytes = b"GET", body: bytes = b"") -> bytes:
    """Return a request with exactly `target`, that asks the server to close the connection."""
    host = urlsplit(url).netloc.encode()
    raw = target.encode() if isinstance(target, str) else target
    lines = [method + b" " + raw + b" HTTP/1.1", b"Host: " + host, b"Connection: close", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def answers(url: str, path: str, seconds: float = 20.0) -> bool:
    """Tell whether the server at `url` answers `GET path` with less than 500 within `seconds`."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}{path}", timeout=5, trust_env=False).status_code < 500:
                return True
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
