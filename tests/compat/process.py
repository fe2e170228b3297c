"""`tidemill serve` and `tidemill score` as processes, for models in folders."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.servers import free_port, secret_file

_TIDEMILL = str(Path(sys.executable).with_name("tidemill"))


@dataclass
class Served:
    """A running server."""

    client: httpx.Client
    log: Path

    def invocations(self, body: Any, **headers: str) -> Any:
        """Return the predictions for a JSON body."""
        answer = self.client.post("/invocations", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()["predictions"]

    def post(self, path: str, body: Any) -> Any:
        """Return the JSON answer, which must be a success."""
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


class Commands:
    """Runs the commands with their state below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = secret_file(folder, "key")
        self._count = 0

    @property
    def _env(self) -> dict[str, str]:
        places = {"XDG_STATE_HOME": str(self._folder / "state"), "TIDEMILL_CACHE": str(self._folder / "cache")}
        return {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", **places}

    def _start(self, model: Path, *options: str) -> tuple[subprocess.Popen[bytes], int, Path]:
        self._count += 1
        port, log = free_port(), self._folder / f"serve-{self._count}.log"
        command = [_TIDEMILL, "serve", str(model), "--port", str(port), "--key-file", str(self._key), *options]
        with log.open("wb") as out:
            return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=self._env), port, log

    @contextmanager
    def serve(self, model: Path, *options: str) -> Generator[Served]:
        """Serve a folder until the block ends; wait until it is ready."""
        process, port, log = self._start(model, *options)
        headers = {"Authorization": f"Bearer {self._key.read_text()}"}
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60, trust_env=False
            ) as client:
                _wait_until_ready(process, client, log)
                yield Served(client, log)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def serve_in_vain(self, model: Path, *options: str) -> tuple[int, str]:
        """Serve a folder that cannot be served; return the exit code and the output."""
        process, _, log = self._start(model, *options)
        try:
            return process.wait(120), log.read_text()
        finally:
            process.kill()
            process.wait()

    def score(self, model: Path, table: Path, out: Path, *options: str) -> tuple[int, str]:
        """Score a file; return the exit code and the output."""
        command = [_TIDEMILL, "score", str(model), str(table), str(out), "--overwrite", *options]
        done = subprocess.run(command, capture_output=True, text=True, env=self._env, check=False, timeout=300)
        return done.returncode, done.stdout + done.stderr


def _wait_until_ready(process: subprocess.Popen[bytes], client: httpx.Client, log: Path) -> None:
    end = time.monotonic() + 120
    while True:
        assert process.poll() is None, f"the server ended:\n{log.read_text()[-4000:]}"
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert "cannot serve" not in log.read_text(), f"the model is refused:\n{log.read_text()[-4000:]}"
        assert time.monotonic() < end, f"the server is not ready:\n{log.read_text()[-4000:]}"
        time.sleep(0.1)
