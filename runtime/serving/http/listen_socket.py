"""The socket which a server listens on."""

from __future__ import annotations

import socket

from ...common.settings import ListenSettings

__all__ = ["BACKLOG", "bound_socket"]

BACKLOG = 2048
"""Connections which the system holds until they are accepted."""


def bound_socket(listen: ListenSettings) -> socket.socket:
    """Return a listening socket, which several processes may share.

    Raises:
        OSError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((listen.host, listen.port))
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    made.setblocking(False)
    return made
