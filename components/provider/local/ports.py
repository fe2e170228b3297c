"""Ports of the loopback interface: finds free ones, keeps them, and names the process that uses one."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from typing import Final

from ....runtime.common.errors import NotFoundError, ServiceError
from ....runtime.common.files import write_private
from ...layout import StackRoot
from .files import locked, read_json

HOST: Final = "127.0.0.1"

# Below the ephemeral range (net.ipv4.ip_local_port_range starts at 32768), which outgoing connections use.
_FIRST = 20_000
_COUNT = 12_000


def keep_port(root: StackRoot, name: str, wanted: int | None) -> int:
    """Reserve a port for the endpoint `name` and return it: `wanted`, the one reserved before, or a free one.

    The choice depends only on the stack, the name and the free ports, so a recreated stack has the same addresses.

    Raises:
        ServiceError: another process uses `wanted`.
    """
    with locked(root):
        kept = read_json(root.endpoints) or {}
        if name in kept and wanted in (None, kept[name]):
            return int(kept[name])
        if wanted is not None:
            require_free(name, wanted)
        port = wanted if wanted is not None else _choose(root, name, {int(value) for value in kept.values()})
        write_private(root.endpoints, json.dumps({**kept, name: port}, indent=2, sort_keys=True))
        return port


def restore_port(root: StackRoot, name: str, port: int) -> None:
    """Record the port of the endpoint `name` again."""
    with locked(root):
        kept = read_json(root.endpoints) or {}
        write_private(root.endpoints, json.dumps({**kept, name: port}, indent=2, sort_keys=True))


def kept_port(root: StackRoot, name: str) -> int:
    """Return the reserved port of the endpoint `name`.

    Raises:
        NotFoundError: there is no such endpoint.
    """
    kept = read_json(root.endpoints) or {}
    if name not in kept:
        raise NotFoundError("the stack has no such endpoint", field="endpoint", value=name, hint="run `tidemill up`")
    return int(kept[name])


def forget_port(root: StackRoot, name: str) -> None:
    """Release the port of the endpoint `name`."""
    with locked(root):
        kept = read_json(root.endpoints) or {}
        if kept.pop(name, None) is not None:
            write_private(root.endpoints, json.dumps(kept, indent=2, sort_keys=True))


def require_free(name: str, port: int) -> None:
    """Check that no process listens on `port`.

    Raises:
        ServiceError: one does; names the endpoint, the port and, if possible, the process.
    """
    if holder := holder_of(port):
        raise ServiceError(
            f"its port is taken by {holder}",
            field=f"endpoint {name}",
            value=port,
            hint="end that process, or give the endpoint another port",
        )


def _choose(root: StackRoot, name: str, mine: set[int]) -> int:
    others: set[int] = set()
    # A stopped service of another stack does not hold its port now, but needs it again later.
    for path in root.path.parent.glob("*/endpoints.json"):
        others |= {int(value) for value in (read_json(path) or {}).values()}
    start = int.from_bytes(hashlib.sha256(os.fsencode(f"{root.path}\0{name}")).digest()[:4])
    for step in range(_COUNT):
        port = _FIRST + (start + step) % _COUNT
        if port not in mine and port not in others and _free(port):
            return port
    raise ServiceError("no port is free", field=f"endpoint {name}", hint="end processes that listen on 127.0.0.1")


def _free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # A closed connection in TIME_WAIT is not a listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def holder_of(port: int) -> str | None:
    """Return the process that listens on `port`, by name and number if possible; None if the port is free."""
    return None if _free(port) else _listener(port) or "another process"


def _listener(port: int) -> str | None:
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr[1] == port:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})" if connection.pid else None
    except psutil.Error:
        return None
    return None
