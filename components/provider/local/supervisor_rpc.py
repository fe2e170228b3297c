"""Calls a supervisord through its Unix socket (http://supervisord.org/api.html)."""

from __future__ import annotations

import http.client
import socket
import xmlrpc.client
from pathlib import Path
from typing import Any, Final

Fault = xmlrpc.client.Fault

BAD_NAME: Final = 10
NOT_RUNNING: Final = 70
ALREADY_ADDED: Final = 90


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def call(path: Path, method: str, *arguments: Any, timeout: float = 30.0) -> Any:
    """Call `method` of the supervisord that listens on the socket `path`.

    Raises:
        OSError: it does not answer within `timeout` seconds.
        Fault: it refuses; `faultCode` has the reason.
    """
    connection = _Connection(path, timeout)
    try:
        body = xmlrpc.client.dumps(arguments, method)
        connection.request("POST", "/RPC2", body.encode(), {"Content-Type": "text/xml"})
        answer = connection.getresponse()
        text = answer.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"supervisord closed the connection: {error}") from None
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise ConnectionError(f"supervisord answered {answer.status}")
    return xmlrpc.client.loads(text)[0][0]
