"""Connects this machine to a database in a private network, without publishing a port.

libpq connects to a Unix socket in a private folder. For each connection, a process in a container of that network
connects to the server and forwards the bytes.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from ....runtime.common.files import write_private
from ..postgres_access import database_role, pass_line
from .scratch_container import ContainerProcess, ScratchContainer

_PORT = 5432
_CHUNK = 1 << 16


@contextmanager
def postgres_tunnel(container: ScratchContainer, server: str, name: str, password: str) -> Generator[str]:
    """Give the SQLAlchemy URL of the database `name` on `server`. A file, not the URL, contains the password.

    Args:
        container: a running container in the server's network.
        server: the server's name in that network.
        name: the database, by its name in the stack.
        password: the password of the role that owns it.
    """
    role = database_role(name)
    with tempfile.TemporaryDirectory(prefix="tidemill-") as text, socket.socket(socket.AF_UNIX) as listener:
        folder = Path(text)
        write_private(folder / "pgpass", pass_line(password))
        listener.bind(str(folder / f".s.PGSQL.{_PORT}"))
        listener.listen()
        thread = threading.Thread(target=_accept, args=(listener, container, server), daemon=True)
        thread.start()
        try:
            query = urlencode({"host": str(folder), "passfile": str(folder / "pgpass")})
            yield f"postgresql+psycopg2://{role}@/{role}?{query}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _accept(listener: socket.socket, container: ScratchContainer, server: str) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # the tunnel was closed
        threading.Thread(target=_forward, args=(client, container, server), daemon=True).start()


def _forward(client: socket.socket, container: ScratchContainer, server: str) -> None:
    # The client's library reports a broken connection.
    with (
        client,
        contextlib.suppress(Exception),
        contextlib.closing(container.run_script("tunnel", server, str(_PORT))) as process,
    ):
        back = threading.Thread(target=_forward_back, args=(process, client), daemon=True)
        back.start()
        while data := client.recv(_CHUNK):
            process.send(data)
        process.close_input()
        back.join()


def _forward_back(process: ContainerProcess, client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := process.read(_CHUNK):
            client.sendall(data)
        client.shutdown(socket.SHUT_RDWR)
