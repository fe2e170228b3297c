"""What it takes to reach a server, for callers which must start quickly: only the standard library is imported."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from .errors import ConfigError, NotFoundError

__all__ = ["is_loopback", "read_secret"]


def read_secret(path: Path) -> str:
    """Return the secret kept in `path`, without surrounding white space.

    Raises:
        NotFoundError: the file does not exist or cannot be read.
        ConfigError: it is empty; an empty secret opens nothing.
    """
    try:
        value = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise NotFoundError(f"cannot read the secret ({error.strerror})", field="secret", value=str(path)) from None
    if not value:
        raise ConfigError("the secret is empty", field="secret", value=str(path), hint="run `tidemill up`")
    return value


def is_loopback(url: str) -> bool:
    """Tell whether `url` is on this machine's own loopback, which no proxy has a way to.

    >>> is_loopback("http://127.0.0.1:8000"), is_loopback("http://lake.example.org")
    (True, False)
    """
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
