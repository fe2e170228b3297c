"""Reads and writes the contents of a stack on this machine: folders, SQLite files, lakeFS. Imports no Pulumi."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

from ....runtime.common.errors import NotFoundError, PlatformError, ServiceError
from ...layout import StackRoot
from ...provider.local.files import secret_value
from ..http_get import is_healthy
from ..migration import LakeServer
from ..staged_import import StagedImport, finished_jobs, lake_server, read_secrets, running_lake
from .operations import LocalOperations
from .store import FolderStore, sqlite_copy

_SCHEME = "local://"
_OBJECTS = "lakefs-objects"
_LAKE = "lakefs"
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_LOAD_SECONDS = 600.0
LAKEFS_ENV: Final[Mapping[str, str]] = {
    "LAKEFS_STATS_ENABLED": "false",
    "LAKEFS_USAGE_REPORT_ENABLED": "false",
    "LAKEFS_SECURITY_CHECK_LATEST_VERSION": "false",
    "LAKEFS_EMAIL_SUBSCRIPTION_ENABLED": "false",
    "LAKEFS_INSTALLATION_USER_NAME": "tidemill",
    "LAKEFS_LOGGING_LEVEL": "WARN",
}
"""Environment of a lakeFS server that only a migration uses, on any target."""

LAKEFS_CONFIG = 'security:\n  audit_check_url: ""\n'
"""Config file of that server; lakeFS ignores an empty environment variable."""


class LocalSource:
    """A stack that is up; see `MigrationSource`.

    Args:
        root: the stack's folder.
    """

    def __init__(self, root: StackRoot) -> None:
        self._root = root

    @contextmanager
    def lake(self) -> Generator[LakeServer]:
        """See `MigrationSource`."""
        yield running_lake(LocalOperations(self._root).url(_LAKE), self._root)

    def objects(self, namespace: str) -> FolderStore:
        """See `MigrationSource`."""
        name = namespace.removeprefix(_SCHEME)
        folder = self._root.data(_OBJECTS)
        if name == namespace or not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise PlatformError("its objects are not on this machine", field="lake", value=namespace)
        return FolderStore(folder / name)

    def relative(self, namespace: str, address: str) -> str | None:
        """See `MigrationSource`."""
        path = Path(os.path.normpath(address.removeprefix(_SCHEME)))
        folder = self._root.data(_OBJECTS) / namespace.removeprefix(_SCHEME)
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else None

    def store(self, name: str) -> FolderStore | None:
        """See `MigrationSource`."""
        folder = self._root.data(name)
        return FolderStore(folder) if folder.is_dir() else None

    @contextmanager
    def database(self, name: str) -> Generator[str]:
        """See `MigrationSource`."""
        path = _database(self._root, name)
        if not path.is_file():
            raise NotFoundError("the stack has no such database", field="database", value=name)
        with sqlite_copy(path) as copy:
            yield f"sqlite:///{copy}"

    def secrets(self) -> Mapping[str, str]:
        """See `MigrationSource`."""
        return read_secrets(self._root)

    def jobs(self) -> Mapping[str, str]:
        """See `MigrationSource`."""
        return finished_jobs(self._root)


class LocalDestination(StagedImport):
    """A stack that does not exist yet; see `MigrationDestination`.

    Args:
        root: the folder that the stack will have.
    """

    def obstacle(self) -> str | None:
        """See `MigrationDestination`."""
        return f"{self._final.path} exists" if self._final.path.exists() else None

    def lake_version(self) -> str | None:
        """See `MigrationDestination`."""
        return LocalOperations(self._root).version(_LAKE)

    def begin(self, archive: str) -> bool:
        """See `MigrationDestination`."""
        self._kill_leftover()
        resumed = self.resume_or_begin(archive)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._root.data(_LAKE))
        return resumed

    def place(self) -> str:
        """See `MigrationDestination`."""
        return str(self._staging)

    def store(self, name: str) -> FolderStore:
        """See `MigrationDestination`."""
        return FolderStore(self._data(name))

    def namespace(self, repository: str) -> str:
        """See `MigrationDestination`."""
        return f"{_SCHEME}{repository}"

    def objects(self, repository: str) -> FolderStore:
        """See `MigrationDestination`."""
        return FolderStore(self._data(_OBJECTS) / repository)

    def load_lake(self, dump: Path) -> None:
        """See `MigrationDestination`."""
        argv = [*self._lakefs(), "kv", "load", "--input", str(dump), "--strategy", "overwrite"]
        done = subprocess.run(
            argv,
            env=self._lake_env(0),
            cwd=self._staging,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LOAD_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise ServiceError("could not load its entries", field=_LAKE, log_tail=(done.stderr or done.stdout)[-2000:])

    @contextmanager
    def lake(self) -> Generator[LakeServer]:
        """See `MigrationDestination`."""
        port = _free_port()
        log = self._staging / "lakefs.log"
        with open(log, "wb", opener=_private) as file:
            process = subprocess.Popen(
                [*self._lakefs(), "run"],
                env=self._lake_env(port),
                cwd=self._staging,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                # A signal to this process must not reach lakeFS: `finally` stops it.
                start_new_session=True,
            )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(process, f"{url}/_health", log)
            yield lake_server(url, self._root)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def database(self, name: str) -> str:
        """See `MigrationDestination`."""
        path = _database(self._root, name)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path.parent)
        self._data(name)
        path.touch(mode=0o600)
        return f"sqlite:///{path}"

    def _kill_leftover(self) -> None:
        """Kill the server of an attempt that was killed: both would write to the same files."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if str(self._staging / "lakefs.yaml") in process.cmdline():
                    process.kill()
                    process.wait(_STOP_SECONDS)

    def _data(self, name: str) -> Path:
        folder = self._root.data(name)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def _lakefs(self) -> list[str]:
        from ... import tools

        config = self._staging / "lakefs.yaml"
        config.write_text(LAKEFS_CONFIG, encoding="utf-8")
        return [str(tools.ensure("lakefs")), "--config", str(config)]

    def _lake_env(self, port: int) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        return {
            **kept,
            **LAKEFS_ENV,
            "HOME": str(self._staging),
            "LAKEFS_LISTEN_ADDRESS": f"127.0.0.1:{port}",
            "LAKEFS_DATABASE_TYPE": "local",
            "LAKEFS_DATABASE_LOCAL_PATH": str(self._data(_LAKE)),
            "LAKEFS_BLOCKSTORE_TYPE": "local",
            "LAKEFS_BLOCKSTORE_LOCAL_PATH": str(self._data(_OBJECTS)),
            "LAKEFS_BLOCKSTORE_SIGNING_SECRET_KEY": secrets.token_urlsafe(32),
            "LAKEFS_COMMITTED_LOCAL_CACHE_DIR": str(self._staging / "cache"),
            "LAKEFS_AUTH_ENCRYPT_SECRET_KEY": secret_value(self._root, "lakefs-encrypt"),
            "LAKEFS_INSTALLATION_ACCESS_KEY_ID": secret_value(self._root, "lakefs-key-id"),
            "LAKEFS_INSTALLATION_SECRET_ACCESS_KEY": secret_value(self._root, "lakefs-secret"),
        }


def _database(root: StackRoot, name: str) -> Path:
    return root.data(name) / f"{name}.db"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while True:
        if process.poll() is not None or time.monotonic() > end:
            tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise ServiceError("does not start", field=_LAKE, log_tail=tail)
        if is_healthy(url):
            return
        time.sleep(0.1)
