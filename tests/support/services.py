"""A service of the runtime as a process of its own, which may be killed and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
from tidemill.runtime.common.verdicts import generate_signing_key, public_key

from tests.support.servers import free_port, secret_file

T = TypeVar("T")


class Service:
    """`python -m tidemill.runtime.<package>` with `settings`, in `folder`; the port and token stay."""

    def __init__(self, package: str, folder: Path, settings: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._argv = [
            sys.executable, "-m", f"tidemill.runtime.{package}", "--settings", str(folder / "settings.json"),
        ]  # fmt: skip
        port = free_port()
        token = secret_file(folder, "token")
        self.url = f"http://127.0.0.1:{port}"
        self.token = token.read_text()
        listen = {"port": port, "token_file": str(token)}
        (folder / "settings.json").write_text(json.dumps({"listen": listen, **settings}))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process, "the service was not started"
        return self._process.pid

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def client(self, token: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token if token is None else token}".strip()}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    def get(self, path: str) -> httpx.Response:
        with self.client() as client:
            return client.get(path).raise_for_status()

    def metrics(self) -> dict[str, float]:
        """Return series -> value."""
        lines = [line for line in self.get("/metrics").text.splitlines() if line and not line.startswith("#")]
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._argv,
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "A_SECRET_OF_THE_SERVICE": "x"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.wait("its health", lambda: self.get("/healthz").is_success)

    def wait(self, what: str, ask: Callable[[], T | None], seconds: float = 90) -> T:
        """Ask until the answer is something, and return it."""
        end = time.monotonic() + seconds
        while True:
            assert self._process, "the service was not started"
            assert self._process.poll() is None, f"the service ended:\n{self.log[-4000:]}"
            try:
                if answer := ask():
                    return answer
            except httpx.TransportError:
                pass
            assert time.monotonic() < end, f"waited in vain for {what}:\n{self.log[-4000:]}"
            time.sleep(0.1)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it as its supervisor does; return its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
            raise


def idle_settings(name: str, folder: Path) -> dict[str, Any]:
    """Return settings with which the service starts; nothing listens at its addresses."""
    lake = {
        "endpoint": "http://127.0.0.1:9",
        "key_id_file": str(secret_file(folder, "key")),
        "secret_file": str(secret_file(folder, "secret")),
    }
    registry = {"tracking_uri": "http://127.0.0.1:9"}
    signing_key = generate_signing_key()
    runtime = folder / "runtime.json"
    runtime.write_text(json.dumps({"stack": "a-b", "lake": lake, "registry": registry}))
    return {
        "retraining": {
            "runtime": str(runtime),
            "registry": registry,
            "lake": lake,
            "state": str(folder / "state"),
            "models": [],
        },
        "retraining.runner": {"state": str(folder / "state"), "runtime": str(runtime), "trainings": []},
        "monitor": {"registry": registry, "lake": lake, "state": str(folder / "state"), "models": []},
        "validation": {
            "hook_secret_file": str(secret_file(folder, "hook")),
            "signing_key_file": str(secret_file(folder, "signing-key", signing_key)),
            "lake": {**lake, "verdict_keys": [public_key(signing_key)]},
            "suites": {},
            "reports": str(folder / "reports"),
        },
    }[name]
