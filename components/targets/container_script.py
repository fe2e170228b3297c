"""The script that moves a stack's files and database connections from inside a container, on any Python 3.11.

    python3 -I -S -c TEXT store /data/NAME   serves requests of `docker.volumes.VolumeStore`, one line of JSON each
    python3 -I -S -c TEXT tunnel HOST PORT   connects its input and output to a server in the private network

It imports only the standard library, because the image may not be one of ours. A response is a line with the number of
bytes, followed by the bytes; -1 means that the file does not exist. `local.store` uses parts of this module.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO

SQLITE = b"SQLite format 3\0"
_COMPANIONS = ("-wal", "-shm", "-journal")
PARTIAL = ".tidemill-partial"
CHUNK = 1 << 20


def is_sqlite(path: Path) -> bool:
    """Return whether the file at `path` is a SQLite database."""
    with path.open("rb") as file:
        return file.read(len(SQLITE)) == SQLITE


def file_names(top: Path) -> Iterator[str]:
    """Yield the paths of files below `top`, without partial files and the companions of SQLite databases."""
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted(files):
            path = Path(folder, name)
            if path.is_symlink() or not path.is_file() or name.endswith(PARTIAL):
                continue
            base = next((name.removesuffix(end) for end in _COMPANIONS if name.endswith(end)), None)
            if base in files and is_sqlite(path.with_name(str(base))):
                continue
            yield path.relative_to(top).as_posix()


def _send(out: IO[bytes], data: bytes) -> None:
    out.write(b"%d\n" % len(data) + data)
    out.flush()


def _read(out: IO[bytes], path: Path) -> None:
    """Send a file; of a SQLite database, a consistent copy."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        out.write(b"-1\n")
        out.flush()
        return
    with file:
        if file.read(len(SQLITE)) == SQLITE:
            with (
                closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as old,
                closing(sqlite3.connect(":memory:")) as new,
            ):
                old.backup(new)
                _send(out, new.serialize())
            return
        file.seek(0)
        left = os.fstat(file.fileno()).st_size
        out.write(b"%d\n" % left)
        while left:
            data = file.read(min(left, CHUNK))
            if not data:
                sys.exit("the file became shorter")
            out.write(data)
            left -= len(data)
        out.flush()


def _write(source: IO[bytes], out: IO[bytes], path: Path, left: int) -> None:
    """Write a file, completely or not at all, and send the hash of the received bytes."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(path.name[:100] + PARTIAL)
    digest = hashlib.sha256()
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        while left:
            data = source.read(min(left, CHUNK))
            if not data:
                sys.exit("the input ended too early")
            file.write(data)
            digest.update(data)
            left -= len(data)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    _send(out, digest.hexdigest().encode())


def _store(top: Path) -> None:
    source, out = sys.stdin.buffer, sys.stdout.buffer
    while line := source.readline():
        kind, name, size = json.loads(line)
        path = top / name
        if kind == "names":
            _send(out, json.dumps(list(file_names(path))).encode())
        elif kind == "read":
            _read(out, path)
        elif kind == "write":
            _write(source, out, path, size)
        elif path.is_file():
            with path.open("rb") as file:
                _send(out, hashlib.file_digest(file, "sha256").hexdigest().encode())
        else:
            _send(out, b"")


def _tunnel(host: str, port: int) -> None:
    with socket.create_connection((host, port), 10) as server:
        server.settimeout(None)

        def forward() -> None:
            while data := os.read(0, CHUNK):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

        threading.Thread(target=forward, daemon=True).start()
        while data := server.recv(CHUNK):
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]


if __name__ == "__main__":
    if sys.argv[1] == "store":
        _store(Path(sys.argv[2]))
    else:
        _tunnel(sys.argv[2], int(sys.argv[3]))
