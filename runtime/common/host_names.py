"""The check of the Host header, against DNS rebinding.

A web page can make its own name resolve to an address of this machine. The browser then treats the service as part of
that page's site. The Host header still contains the page's name, so a service refuses names that are not its own.
IP addresses are accepted: no DNS answer is involved, and load balancers send them in health checks.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .problem import PROBLEM_TYPE, problem_document

ANY = "*"
"""The configured name that accepts every name."""

_LOOPBACK = "localhost"
_MAX_LENGTH = 300
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::[0-9]{1,5})?", re.ASCII)


class HostNames:
    """The names under which clients may address a service: `localhost`, IP addresses and the configured names.

    Args:
        configured: more names, without a port; `*` accepts every name.
    """

    def __init__(self, configured: Iterable[str] = ()) -> None:
        names = {name.lower().rstrip(".") for name in configured}
        self._any = ANY in names
        self._names = frozenset(names | {_LOOPBACK})
        self.problem = functools.lru_cache(maxsize=64)(self._problem)

    def problem_of(self, headers: Iterable[tuple[bytes, bytes]], http_version: str) -> tuple[int, str] | None:
        """Return the status and the reason to refuse a request, or None if its Host header names this service.

        Args:
            headers: of the request; names in lower case.
            http_version: such as `1.1`.
        """
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) == 1:
            return self.problem(hosts[0])
        if not hosts and http_version == "1.0":
            return None  # HTTP/1.0 does not require the header, and browsers always send it
        return 400, f"the request must have one Host header, not {len(hosts)}"

    def _problem(self, host: bytes) -> tuple[int, str] | None:
        found = _HOST.fullmatch(host.decode("latin-1").lower()) if len(host) <= _MAX_LENGTH else None
        if found is None:
            return 400, "the Host header must be a name or an IP address, with an optional port"
        name = found["name"].rstrip(".")
        if self._any or name in self._names or is_address(name.strip("[]")):
            return None
        return 421, f"this service does not accept the host name {name}; add it to the service's `hosts`"


def is_address(text: str) -> bool:
    """Return whether `text` is an IP address, without brackets."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class HostCheck:
    """An ASGI application that refuses requests with a foreign Host header and passes the others to `app`.

    Args:
        app: the application behind it.
        configured: the configured names; see `HostNames`.
    """

    def __init__(self, app: Any, configured: Sequence[str]) -> None:
        self._app = app
        self._names = HostNames(configured)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] == "http" and (problem := self._names.problem_of(scope["headers"], scope["http_version"])):
            await refuse(send, *problem)
        else:
            await self._app(scope, receive, send)


async def refuse(send: Any, status: int, detail: str, extra: Mapping[str, str] | None = None) -> None:
    """Send a problem document and close the connection, without reading the request's body.

    Args:
        send: of the ASGI application.
        status: HTTP status.
        detail: what is wrong, in one sentence without a full stop.
        extra: more members of the document.
    """
    body = problem_document(status, detail, extra).encode()
    headers = [
        (b"content-type", PROBLEM_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
