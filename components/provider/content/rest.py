"""Requests of the content resources to the servers whose content they are.

The HTTP client is imported when the first request is made, so that the provider starts quickly.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....runtime.common.errors import PlatformError, UnreachableError
from ....runtime.common.http import json_body, server_message, unreachable
from ....runtime.common.secrets import is_loopback, read_secret

if TYPE_CHECKING:
    import httpx

# A merge waits for its hooks, which may take minutes on large data.
_TIMEOUT = (5.0, 600.0)
_READ_TIMEOUT = (5.0, 30.0)


@dataclass(frozen=True)
class Answer:
    """What a server answered.

    Attributes:
        status: HTTP status.
        body: the parsed JSON of the answer, or an empty dict where it is none.
        text: the answer as text.
        etag: its version, where the server gives one.
    """

    status: int
    body: Any
    text: str
    etag: str | None = None

    @property
    def structured(self) -> bool:
        """Whether an error has the form in which both lakeFS and MLflow report theirs."""
        return isinstance(self.body, dict) and "message" in self.body

    @property
    def message(self) -> str:
        """The server's own words about an error."""
        return server_message(self.body, self.text)


@dataclass(frozen=True)
class Rest:
    """Requests to one server.

    Attributes:
        server: its name in messages, `lakeFS` or `MLflow`.
        url: its base URL, to which routes are appended.
        user: who asks.
        secret: the password.
    """

    server: str
    url: str
    user: str
    secret: str

    @classmethod
    def with_files(cls, server: str, url: str, user: str | Path, secret: Path) -> Rest:
        """Return a connection whose user (where it is a path) and secret stand in files.

        Raises:
            NotFoundError, ConfigError: a file is missing or empty.
        """
        return cls(server, url.rstrip("/"), read_secret(user) if isinstance(user, Path) else user, read_secret(secret))

    def get(self, route: str, *, ok: Collection[int] = (), **params: str) -> Answer:
        """Ask for `route`; see `send`."""
        return self.send("GET", route, ok=ok, params=params, timeout=_READ_TIMEOUT)

    def send(
        self,
        method: str,
        route: str,
        *,
        ok: Collection[int] = (),
        params: Mapping[str, str] | None = None,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: tuple[float, float] = _TIMEOUT,
    ) -> Answer:
        """Send a request.

        Args:
            method: HTTP method.
            route: path behind the base URL.
            ok: statuses that the caller also handles.
            params: query.
            json: body, as a value.
            content: body, as bytes.
            headers: further headers.
            timeout: seconds to connect, and to wait for data.

        Raises:
            UnreachableError: no answer, or the server's own failure (5xx): nothing is known about what was asked for.
            PlatformError: any other answer which is neither successful nor in `ok`.
        """
        import httpx

        try:
            response = _client(self.url).request(
                method,
                f"{self.url}{route}",
                params=params,
                json=json,
                content=content,
                headers=headers,
                auth=(self.user, self.secret),
                timeout=httpx.Timeout(timeout[1], connect=timeout[0]),
            )
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise unreachable(self.server, self.url, error) from None
        answer = Answer(response.status_code, json_body(response), response.text, response.headers.get("etag"))
        if answer.status == HTTPStatus.NOT_FOUND and not answer.structured:
            # Another server has the port; it cannot say that something is gone.
            raise UnreachableError("is not what answers there", field=self.server, value=self.url)
        if response.is_success or answer.status in ok:
            return answer
        what = f"answered {answer.status} to {method} {route} ({answer.message})"
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise UnreachableError(what, field=self.server, hint=f"see `tidemill logs {self.server.lower()}`")
        hint = "its accounts do not know the stack's secrets" if answer.status == HTTPStatus.UNAUTHORIZED else None
        raise PlatformError(what, field=self.server, hint=hint)


@functools.lru_cache(maxsize=8)
def _client(url: str) -> httpx.Client:
    import httpx

    if not is_loopback(url):
        return httpx.Client()
    # A proxy of the environment has no way to this machine's own loopback.
    transport = httpx.HTTPTransport(trust_env=False)
    client = httpx.Client(transport=transport, trust_env=False)
    # One which the cache lets go may be in use still: its connections are closed when nobody has it any more.
    weakref.finalize(client, transport.close)
    return client
