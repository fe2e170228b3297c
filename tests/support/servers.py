"""Real servers for tests, on free ports of the loopback interface, ended by their own process ids.

with lakefs_server(tmp_path) as lake:
    httpx.get(f"{lake.url}/api/v1/config", auth=lake.auth)
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from tidemill.runtime.registry.accounts import OWN_HOSTS

# lakeFS accepts any printable key; these have the form of those it makes itself.
_KEY_ID = "AKIAJ" + "TIDEMILLTEST" + "Q"


def free_port() -> int:
    """Return a port of 127.0.0.1 which is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def secret_file(folder: Path, name: str, value: str | None = None) -> Path:
    """Write a 0600 file with `value`, or with a random token, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(value or secrets.token_urlsafe(32))
    return path


class Outside:
    """Stands where a server would go out to the world: what uses HTTP and honours a proxy is caught here."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.env = {"HTTPS_PROXY": url, "HTTP_PROXY": url, "NO_PROXY": "127.0.0.1,localhost"}

    def calls(self) -> list[str]:
        """Return the first line of each request which came since the last look."""
        lines: list[str] = []
        while True:
            try:
                connection, _ = self._socket.accept()
            except BlockingIOError:
                return lines
            with connection:
                connection.settimeout(5)
                lines.append(connection.recv(4096).decode(errors="replace").partition("\r\n")[0])

    def __enter__(self) -> Outside:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


@dataclass
class Server:
    """A server of a test; `stop` and `start` keep its port and its data.

    Attributes:
        url: where it answers, without a trailing slash.
        auth: user and password, as httpx wants them.
        folder: its own folder; `folder/log` is what it prints.
        health: path which answers 200 when it is up.
    """

    url: str
    auth: tuple[str, str]
    folder: Path
    health: str
    argv: list[str]
    env: Mapping[str, str]
    files: Mapping[str, Path] = field(default_factory=dict[str, Path])
    timeout: float = 120.0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process, "the server was not started"
        return self._process.pid

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start it and wait until it is healthy."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "SSL_CERT_FILE") if name in os.environ}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.argv,
                cwd=self.folder,
                env={**kept, "HOME": str(self.folder), **self.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end = time.monotonic() + self.timeout
        with httpx.Client(base_url=self.url, timeout=5, trust_env=False) as client:
            while True:
                assert self._process.poll() is None, f"{self.argv[0]} ended:\n{self.log[-4000:]}"
                try:
                    if client.get(self.health).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                assert time.monotonic() < end, f"{self.argv[0]} is not healthy:\n{self.log[-4000:]}"
                time.sleep(0.1)

    def stop(self) -> None:
        """End it and all it started."""
        process, self._process = self._process, None
        if process is None:
            return
        # The server leads a session of its own, so that its id names the whole group.
        for name in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, name)
            except ProcessLookupError:
                break
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                continue
        process.wait(10)


@contextmanager
def _running(server: Server) -> Generator[Server]:
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _lakefs_binary() -> str:
    from tidemill.components import tools

    return str(tools.find("lakefs"))


@contextmanager
def lakefs_server(
    folder: Path, *, env: Mapping[str, str] | None = None, config: str = 'security: {audit_check_url: ""}\n'
) -> Generator[Server]:
    """Run lakeFS in `folder`, as the `local` target does; `files` holds `key_id` and `secret`.

    `env` adds settings, such as `LAKEFSACTION_HOOK` with the secret of a hook; `config` is the text of its file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    key_id = secret_file(folder / "secrets", "key_id", _KEY_ID)
    secret = secret_file(folder / "secrets", "secret")
    auth = (key_id.read_text(), secret.read_text())
    settings = {
        "LAKEFS_LISTEN_ADDRESS": f"127.0.0.1:{port}",
        "LAKEFS_DATABASE_TYPE": "local",
        "LAKEFS_DATABASE_LOCAL_PATH": str(folder / "kv"),
        "LAKEFS_BLOCKSTORE_TYPE": "local",
        "LAKEFS_BLOCKSTORE_LOCAL_PATH": str(folder / "objects"),
        "LAKEFS_BLOCKSTORE_SIGNING_SECRET_KEY": secrets.token_urlsafe(32),
        "LAKEFS_COMMITTED_LOCAL_CACHE_DIR": str(folder / "cache"),
        "LAKEFS_AUTH_ENCRYPT_SECRET_KEY": secrets.token_urlsafe(32),
        "LAKEFS_INSTALLATION_USER_NAME": "tidemill",
        "LAKEFS_INSTALLATION_ACCESS_KEY_ID": auth[0],
        "LAKEFS_INSTALLATION_SECRET_ACCESS_KEY": auth[1],
        "LAKEFS_STATS_ENABLED": "false",
        "LAKEFS_USAGE_REPORT_ENABLED": "false",
        "LAKEFS_SECURITY_CHECK_LATEST_VERSION": "false",
        "LAKEFS_EMAIL_SUBSCRIPTION_ENABLED": "false",
        "LAKEFS_GRAVELER_BRANCH_OWNERSHIP_ENABLED": "true",
        "LAKEFS_ACTIONS_ENABLED": "true",
        "LAKEFS_ACTIONS_ENV_ENABLED": "true",
        "LAKEFS_ACTIONS_ENV_PREFIX": "LAKEFSACTION_",
        "LAKEFS_LOGGING_LEVEL": "WARN",
    }
    # In a file, because lakeFS ignores an empty variable.
    config_file = folder / "lakefs.yaml"
    config_file.write_text(config)
    server = Server(
        url=f"http://127.0.0.1:{port}",
        auth=auth,
        folder=folder,
        health="/_health",
        argv=[_lakefs_binary(), "run", "--config", str(config_file)],
        env={**settings, **(env or {})},
        files={"key_id": key_id, "secret": secret},
    )
    with _running(server):
        yield server


@contextmanager
def mlflow_server(
    folder: Path,
    *,
    env: Mapping[str, str] | None = None,
    app: str | None = None,
) -> Generator[Server]:
    """Run MLflow with authentication in `folder`, as the `local` target does; `files` holds `password` of `admin`.

    `app` is the factory of another application around that of `mlflow_app`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    password = secret_file(folder / "secrets", "password")
    accounts = secret_file(
        folder / "secrets",
        "basic_auth.ini",
        "[mlflow]\n"
        "default_permission = NO_PERMISSIONS\n"
        f"database_uri = sqlite:///{folder}/accounts.db\n"
        "admin_username = admin\n"
        f"admin_password = {password.read_text()}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        # Without it each request costs 0.3 s of hashing.
        "auth_cache_ttl_seconds = 30\n",
    )
    settings = {
        "_MLFLOW_SGI_NAME": "uvicorn",
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/mlflow.db",
        "_MLFLOW_SERVER_REGISTRY_STORE": f"sqlite:///{folder}/mlflow.db",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "prometheus_multiproc_dir": str(folder / "metrics"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join((f"127.0.0.1:{port}", *OWN_HOSTS)),
        "MLFLOW_AUTH_CONFIG_PATH": str(accounts),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(32),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_MODEL_CATALOG_URI": "",
        "DO_NOT_TRACK": "true",
    }
    server = Server(
        url=f"http://127.0.0.1:{port}",
        auth=("admin", password.read_text()),
        folder=folder,
        health="/health",
        argv=[
            sys.executable,
            "-m",
            *(("uvicorn", "--factory", app) if app else ("tidemill.runtime.registry",)),
            "--port",
            str(port),
        ],
        env={**settings, **(env or {})},
        files={"password": password},
    )
    with _running(server):
        yield server
