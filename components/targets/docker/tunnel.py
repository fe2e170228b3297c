"""A way from this machine to a database in a private network, whose port is not published.

A Unix socket in a folder of this user's own stands for the server, as libpq wants it; each connection to it becomes a
program in a container of that network, which connects to the server and passes on what it is given.
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
from .naming import database_role
from .scratch_container import Conversation, Helper

__all__ = ["postgres_tunnel"]

_PORT = 5432
_CHUNK = 1 << 16


@contextmanager
def postgres_tunnel(helper: Helper, server: str, name: str, password: str) -> Generator[str]:
    """Give the SQLAlchemy URL of the database `name` on `server`; the password stands in a file, not in it.

    Args:
        helper: a container in the server's network, which runs.
        server: the server's name there.
        name: the database, as the stack calls it.
        password: of the role which owns it.
    """
    role = database_role(name)
    with tempfile.TemporaryDirectory(prefix="tidemill-") as text, socket.socket(socket.AF_UNIX) as door:
        folder = Path(text)
        write_private(folder / "pgpass", f"*:*:*:*:{password}\n")
        door.bind(str(folder / f".s.PGSQL.{_PORT}"))
        door.listen()
        guard = threading.Thread(target=_let_in, args=(door, helper, server), daemon=True)
        guard.start()
        try:
            query = urlencode({"host": str(folder), "passfile": str(folder / "pgpass")})
            yield f"postgresql+psycopg2://{role}@/{role}?{query}"
        finally:
            door.shutdown(socket.SHUT_RDWR)
            guard.join()


def _let_in(door: socket.socket, helper: Helper, server: str) -> None:
    while True:
        try:
            client, _ = door.accept()
        except OSError:
            return  # the door is shut
        threading.Thread(target=_pass_on, args=(client, helper, server), daemon=True).start()


def _pass_on(client: socket.socket, helper: Helper, server: str) -> None:
    # A connection which breaks is the client's to tell of: its library says that the server is gone.
    with client, contextlib.suppress(Exception), contextlib.closing(helper.ask("tunnel", server, str(_PORT))) as talk:
        back = threading.Thread(target=_bring_back, args=(talk, client), daemon=True)
        back.start()
        while data := client.recv(_CHUNK):
            talk.send(data)
        talk.end()
        back.join()


def _bring_back(talk: Conversation, client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := talk.read(_CHUNK):
            client.sendall(data)
        client.shutdown(socket.SHUT_RDWR)
