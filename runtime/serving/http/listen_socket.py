"""The socket that the server listens on."""

from __future__ import annotations

import socket

from ...common.settings import ListenSettings

BACKLOG = 2048
"""Connections that the system queues until the server accepts them."""


def bind_socket(listen: ListenSettings) -> socket.socket:
    """Return a listening socket that several processes can share.

    Raises:
        OSError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((listen.host, listen.port))
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    listening.setblocking(False)
    return listening
