"""A real Postgres for tests, on a free port of the loopback interface, as a user without rights.

with postgres_server() as postgres:
    url = postgres.new_database("mlflow")
"""

from __future__ import annotations

import functools
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.exc import OperationalError

from tests.support.servers import free_port

_USER = "nobody"
_PROGRAMS = ("initdb", "postgres")


@functools.cache
def programs() -> Path | None:
    """Return the folder with Postgres's own programs; as root on Debian they are installed if need be."""
    found = _found()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (
            ["apt-get", "update"],
            ["apt-get", "install", "-y", "--no-install-recommends", "postgresql"],
        ):
            subprocess.run(command, check=False, env=environment, capture_output=True, timeout=600)
        found = _found()
    return found


def _found() -> Path | None:
    on_path = shutil.which("initdb")
    folders = [Path(os.path.realpath(on_path)).parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if all((folder / name).is_file() for name in _PROGRAMS)), None)


@dataclass
class Postgres:
    """A server which runs."""

    port: int
    password: str

    def url(self, database: str) -> str:
        return f"postgresql+psycopg2://tidemill:{self.password}@127.0.0.1:{self.port}/{database}"

    def new_database(self, name: str) -> str:
        """Make a database and return its URL."""
        engine = sqlalchemy.create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(sqlalchemy.text(f'create database "{name}"'))
        finally:
            engine.dispose()
        return self.url(name)


@contextmanager
def postgres_server() -> Generator[Postgres]:
    """Run a Postgres; skip the test where there is none and none can be installed."""
    folder_of_programs = programs()
    if folder_of_programs is None:
        pytest.skip("no Postgres: initdb is not on PATH, and apt-get cannot install the package postgresql here")
    as_root = os.geteuid() == 0  # as which Postgres does not run
    who = pwd.getpwnam(_USER) if as_root else None
    # pytest's own temporary folders let no other user through.
    folder = Path(tempfile.mkdtemp(prefix="tidemill-postgres-"))
    try:
        password = secrets.token_urlsafe(24)
        (folder / "password").write_text(password)
        if who:
            for path in (folder, folder / "password"):
                os.chown(path, who.pw_uid, who.pw_gid)
        yield from _serve(folder_of_programs, folder, password, who)
    finally:
        shutil.rmtree(folder)


def _serve(where: Path, folder: Path, password: str, who: pwd.struct_passwd | None) -> Generator[Postgres]:
    user: dict[str, Any] = {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []} if who else {}

    def start(*argv: str | Path) -> subprocess.Popen[bytes]:
        with (folder / "log").open("ab") as log:
            return subprocess.Popen[bytes](
                [str(part) for part in argv],
                cwd=folder,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **user,
            )

    data = folder / "data"
    options = ["--username=tidemill", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync"]
    made = start(where / "initdb", f"--pgdata={data}", "--encoding=UTF8", *options)
    assert made.wait(120) == 0, (folder / "log").read_text(errors="replace")
    port = free_port()
    listen = ["-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-c", "fsync=off"]
    server = start(where / "postgres", "-D", data, *listen)
    postgres = Postgres(port, password)
    try:
        _wait(server, postgres, folder / "log")
        yield postgres
    finally:
        server.send_signal(signal.SIGINT)  # its fast shutdown
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait(server: subprocess.Popen[bytes], postgres: Postgres, log: Path) -> None:
    end = time.monotonic() + 60
    engine = sqlalchemy.create_engine(postgres.url("postgres"))
    try:
        while True:
            assert server.poll() is None, log.read_text(errors="replace")
            try:
                with engine.connect():
                    return
            except OperationalError:
                assert time.monotonic() < end, log.read_text(errors="replace")
                time.sleep(0.1)
    finally:
        engine.dispose()
