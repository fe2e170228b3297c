"""Shared by the HTTP clients of the runtime and of the provider: clients, errors and escaping.

httpx is imported when the first client opens, so that the provider starts quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from .errors import UnreachableError
from .secrets import is_loopback

if TYPE_CHECKING:
    import httpx


def open_client(url: str, **options: Any) -> httpx.Client:
    """Return a client with `url` as its base; for this machine it ignores the environment's proxies."""
    import httpx

    return httpx.Client(base_url=url, trust_env=not is_loopback(url), **options)


def escaped(part: str) -> str:
    """Return `part` as one segment of a URL path.

    >>> escaped("fix/january")
    'fix%2Fjanuary'
    """
    return quote(part, safe="")


def json_body(response: httpx.Response) -> Any:
    """Return the parsed JSON of `response`, or an empty dict if it is not JSON."""
    try:
        return response.json()
    except ValueError:
        return {}


def server_message(body: Any, text: str, key: str = "message") -> str:
    """Return the server's error message: the field `key` of the JSON `body`, or the start of `text`.

    >>> server_message({"message": "branch not found"}, "")
    'branch not found'
    """
    if isinstance(body, dict) and key in body:
        return str(cast("dict[str, Any]", body)[key]).strip()
    return text.strip()[:300]


def unreachable(subject: str, url: str | None, error: Exception | None = None, *, server: str = "") -> UnreachableError:
    """Return the error for a server of the platform that does not answer.

    Args:
        subject: the error's field.
        url: where the server should answer.
        error: the failure of the connection, if known.
        server: the server's name, unless `subject` is the name.
    """
    cause = f" ({type(error).__name__})" if error else ""
    return UnreachableError(
        f"{server} does not answer{cause}".strip(),
        field=subject,
        value=url,
        hint="check it with `tidemill status`, or start it with `tidemill start`",
    )
