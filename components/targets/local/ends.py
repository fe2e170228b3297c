"""The ends of a stack on this machine: its folders, its SQLite files, its lakeFS."""

from __future__ import annotations

import contextlib
import json
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
from tidemill.runtime.errors import NotFoundError, PlatformError, ServiceError, UnreachableError

from ...layout import StackRoot
from ...provider.local_files import read_json, secret_value, write_private
from ..asking import get
from ..ends import LakeServer
from .operations import LocalOperations
from .store import FolderStore, sqlite_copy

__all__ = ["LocalNewEnds", "LocalOldEnds"]

_SCHEME = "local://"
_OBJECTS = "lakefs-objects"
_LAKE = "lakefs"
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_LOAD_SECONDS = 600.0
_QUIET: Final[Mapping[str, str]] = {
    "LAKEFS_STATS_ENABLED": "false",
    "LAKEFS_USAGE_REPORT_ENABLED": "false",
    "LAKEFS_SECURITY_CHECK_LATEST_VERSION": "false",
    "LAKEFS_EMAIL_SUBSCRIPTION_ENABLED": "false",
    "LAKEFS_INSTALLATION_USER_NAME": "tidemill",
    "LAKEFS_LOGGING_LEVEL": "WARN",
}
# In a file, because lakeFS ignores an empty variable.
_CONFIG = 'security:\n  audit_check_url: ""\n'


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
            raise UnreachableError("lakeFS does not run", field=_LAKE, mend="run `tidemill start`")
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
        files = sorted(self._root.secrets.iterdir()) if self._root.secrets.is_dir() else []
        return {path.name: path.read_text(encoding="utf-8").strip() for path in files if path.name[0] != "."}

    def jobs(self) -> Mapping[str, str]:
        """See `OldEnds`."""
        folder = self._root.path / "jobs"
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        done = {name: read_json(self._root.job(name) / "done.json") or {} for name in names}
        return {name: str(end["digest"]) for name, end in done.items() if end.get("exit_code") == 0}


class LocalNewEnds:
    """A stack which is not there yet; see `NewEnds`.

    Everything is written into a folder beside the stack's, which at the end becomes the stack's.

    Args:
        root: where the stack will be.
    """

    def __init__(self, root: StackRoot) -> None:
        self._final = root
        self._attempt = root.path.with_name(f".{root.path.name}.importing")
        self._root = StackRoot(self._attempt / "root")

    def obstacle(self) -> str | None:
        """See `NewEnds`."""
        return f"{self._final.path} exists" if self._final.path.exists() else None

    def lake_version(self) -> str | None:
        """See `NewEnds`."""
        return LocalOperations(self._root).version(_LAKE)

    def begin(self, archive: str) -> bool:
        """See `NewEnds`."""
        mark = self._attempt / "import.json"
        again = (read_json(mark) or {}).get("archive") == archive
        self._end_leftover()
        if not again:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self._attempt)
        for folder in (self._attempt, self._root.path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(mark, json.dumps({"archive": archive}))
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._root.data(_LAKE))
        return again

    def place(self) -> str:
        """See `NewEnds`."""
        return str(self._attempt)

    def secret(self, name: str, value: str) -> None:
        """See `NewEnds`."""
        write_private(self._root.secrets / name, value)

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

    def job(self, name: str, digest: str) -> None:
        """See `NewEnds`."""
        write_private(self._root.job(name) / "done.json", json.dumps({"digest": digest, "exit_code": 0}))

    def finish(self) -> None:
        """See `NewEnds`."""
        shutil.rmtree(self._root.path / "scratch", ignore_errors=True)
        self._root.path.rename(self._final.path)
        shutil.rmtree(self._attempt)

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
        config.write_text(_CONFIG, encoding="utf-8")
        return [str(tools.ensure("lakefs")), "--config", str(config)]

    def _lake_env(self, port: int) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        return {
            **kept,
            **_QUIET,
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
