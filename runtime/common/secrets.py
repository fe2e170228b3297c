"""Secrets in files, and loopback addresses. Imports only the standard library, so that callers start quickly."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from .errors import ConfigError, NotFoundError


def read_secret(path: Path) -> str:
    """Return the secret in the file `path`, without surrounding white space.

    Raises:
        NotFoundError: the file does not exist or is not readable.
        ConfigError: the file is empty.
    """
    try:
        value = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise NotFoundError(f"cannot read the secret ({error.strerror})", field="secret", value=str(path)) from None
    if not value:
        raise ConfigError("the secret is empty", field="secret", value=str(path), hint="run `tidemill up`")
    return value


def is_loopback(url: str) -> bool:
    """Tell whether `url` is on this machine's loopback interface, which no proxy can reach.

    >>> is_loopback("http://127.0.0.1:8000"), is_loopback("http://lake.example.org")
    (True, False)
    """
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
