"""Which artifact locations are in the store of the MLflow server. Imports no MLflow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote, urlsplit

PROXIED: Final = "mlflow-artifacts"
"""Scheme of the locations that the server itself stores; clients need no access to its store."""


def is_proxied(uri: str, schemes: Iterable[str] = (PROXIED,)) -> bool:
    """Return whether `uri` names a place in this server's artifact store.

    >>> is_proxied("mlflow-artifacts:/1/models")
    True
    >>> [is_proxied(uri) for uri in ("file:///etc", "mlflow-artifacts://host/1", "mlflow-artifacts:/%2e%2e", "/etc")]
    [False, False, False, False]
    """
    try:
        parts = urlsplit(uri)
    except ValueError:
        return False
    path = parts.path
    while (plain := unquote(path)) != path:
        path = plain
    clean = ".." not in path.replace("\\", "/").split("/") and path.isprintable()
    rooted = path.startswith("/") and not path.startswith("//")
    return parts.scheme in schemes and not (parts.netloc or parts.query or parts.fragment) and rooted and clean
