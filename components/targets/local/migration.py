"""The ends of a stack on this machine: its folders, its SQLite files, its lakeFS."""

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

from ....runtime.common.errors import NotFoundError, PlatformError, ServiceError, UnreachableError
from ...layout import StackRoot
from ...provider.local.files import secret_value
from ..http_get import get
from ..migration import LakeServer
from ..staged_import import Attempt, jobs_in, secrets_in
from .operations import LocalOperations
from .store import FolderStore, sqlite_copy

__all__ = ["LAKEFS_CONFIG", "LAKEFS_ENV", "LocalNewEnds", "LocalOldEnds"]

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
"""Environment of a lakeFS which runs for a move alone, on any target."""

LAKEFS_CONFIG = 'security:\n  audit_check_url: ""\n'
"""The same in a file, because lakeFS ignores an empty variable."""


class LocalOldEnds:
    """A stack below `root` which is up; see `OldEnds`."""

    def __init__(self, root: StackRoot) -> None:
        self._root = root

    @contextmanager
    def lake(self) -> Generator[LakeServer]:
        """See `OldEnds`."""
        url = LocalOperations(self._root).url(_LAKE)
        answer = get(f"{url}/_health") if url else None
        if url is None or answer is None or answer[0] != 200:
            raise UnreachableError("lakeFS does not run", field=_LAKE, hint="run `tidemill start`")
        yield LakeServer(url, secret_value(self._root, "lakefs-key-id"), secret_value(self._root, "lakefs-secret"))

    def objects(self, namespace: str) -> FolderStore:
        """See `OldEnds`."""
        name = namespace.removeprefix(_SCHEME)
        folder = self._root.data(_OBJECTS)
        if name == namespace or not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise PlatformError("its objects do not lie on this machine", field="lake", value=namespace)
        return FolderStore(folder / name)

    def relative(self, namespace: str, address: str) -> str | None:
        """See `OldEnds`."""
        path = Path(os.path.normpath(address.removeprefix(_SCHEME)))
        folder = self._root.data(_OBJECTS) / namespace.removeprefix(_SCHEME)
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else None

    def store(self, name: str) -> FolderStore | None:
        """See `OldEnds`."""
        folder = self._root.data(name)
        return FolderStore(folder) if folder.is_dir() else None

    @contextmanager
    def database(self, name: str) -> Generator[str]:
        """See `OldEnds`."""
        path = _database(self._root, name)
        if not path.is_file():
            raise NotFoundError("the stack has no such database", field="database", value=name)
        with sqlite_copy(path) as copy:
            yield f"sqlite:///{copy}"

    def secrets(self) -> Mapping[str, str]:
        """See `OldEnds`."""
        return secrets_in(self._root)

    def jobs(self) -> Mapping[str, str]:
        """See `OldEnds`."""
        return jobs_in(self._root)


class LocalNewEnds(Attempt):
    """A stack which is not there yet; see `NewEnds`.

    Args:
        root: where the stack will be.
    """

    def obstacle(self) -> str | None:
        """See `NewEnds`."""
        return f"{self._final.path} exists" if self._final.path.exists() else None

    def lake_version(self) -> str | None:
        """See `NewEnds`."""
        return LocalOperations(self._root).version(_LAKE)

    def begin(self, archive: str) -> bool:
        """See `NewEnds`."""
        self._end_leftover()
        again = self.go_on_with(archive)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._root.data(_LAKE))
        return again

    def place(self) -> str:
        """See `NewEnds`."""
        return str(self._attempt)

    def store(self, name: str) -> FolderStore:
        """See `NewEnds`."""
        return FolderStore(self._data(name))

    def namespace(self, repository: str) -> str:
        """See `NewEnds`."""
        return f"{_SCHEME}{repository}"

    def objects(self, repository: str) -> FolderStore:
        """See `NewEnds`."""
        return FolderStore(self._data(_OBJECTS) / repository)

    def load_lake(self, dump: Path) -> None:
        """See `NewEnds`."""
        argv = [*self._lakefs(), "kv", "load", "--input", str(dump), "--strategy", "overwrite"]
        done = subprocess.run(
            argv,
            env=self._lake_env(0),
            cwd=self._attempt,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LOAD_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise ServiceError("did not take its entries", field=_LAKE, log_tail=(done.stderr or done.stdout)[-2000:])

    @contextmanager
    def lake(self) -> Generator[LakeServer]:
        """See `NewEnds`."""
        port = _free_port()
        log = self._attempt / "lakefs.log"
        with open(log, "wb", opener=_private) as file:
            process = subprocess.Popen(
                [*self._lakefs(), "run"],
                env=self._lake_env(port),
                cwd=self._attempt,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                # What interrupts this process ends it in our own order.
                start_new_session=True,
            )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(process, f"{url}/_health", log)
            yield LakeServer(url, secret_value(self._root, "lakefs-key-id"), secret_value(self._root, "lakefs-secret"))
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def database(self, name: str) -> str:
        """See `NewEnds`."""
        path = _database(self._root, name)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path.parent)
        self._data(name)
        path.touch(mode=0o600)
        return f"sqlite:///{path}"

    def _end_leftover(self) -> None:
        """End the server of an attempt which was killed: it would write where this one does."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if str(self._attempt / "lakefs.yaml") in process.cmdline():
                    process.kill()
                    process.wait(_STOP_SECONDS)

    def _data(self, name: str) -> Path:
        folder = self._root.data(name)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def _lakefs(self) -> list[str]:
        from ... import tools

        config = self._attempt / "lakefs.yaml"
        config.write_text(LAKEFS_CONFIG, encoding="utf-8")
        return [str(tools.ensure("lakefs")), "--config", str(config)]

    def _lake_env(self, port: int) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        return {
            **kept,
            **LAKEFS_ENV,
            "HOME": str(self._attempt),
            "LAKEFS_LISTEN_ADDRESS": f"127.0.0.1:{port}",
            "LAKEFS_DATABASE_TYPE": "local",
            "LAKEFS_DATABASE_LOCAL_PATH": str(self._data(_LAKE)),
            "LAKEFS_BLOCKSTORE_TYPE": "local",
            "LAKEFS_BLOCKSTORE_LOCAL_PATH": str(self._data(_OBJECTS)),
            "LAKEFS_BLOCKSTORE_SIGNING_SECRET_KEY": secrets.token_urlsafe(32),
            "LAKEFS_COMMITTED_LOCAL_CACHE_DIR": str(self._attempt / "cache"),
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
        answer = get(url)
        if answer is not None and answer[0] == 200:
            return
        time.sleep(0.1)
