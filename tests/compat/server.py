"""tidemill's answers: its ASGI application in this process, so that a request takes a millisecond.

Only the watcher of the registry is not started: `load` prepares and loads a version here, without a child process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill.runtime.serving.app import create_app
from tidemill.runtime.serving.model_server import ModelServer
from tidemill.runtime.serving.settings import ServingSettings
from tidemill.runtime.serving.telemetry.worker_status import WorkerStatuses
from tidemill.runtime.serving.versions import preparation
from tidemill.runtime.serving.versions.model import ServedModel, load
from tidemill.runtime.serving.versions.source import source_of

from tests.support.servers import secret_file

from .oracle import JSON, Answer, as_text, quiet, read

_KEY = "key"


@dataclass(frozen=True)
class Response:
    """A response of the application."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class InProcess:
    """The application of one worker; `load` and `use` change its version. Close it after use.

    Args:
        folder: for the cache and the key.
        compiled: whether to compile models that can be compiled, which may take seconds.
    """

    def __init__(self, folder: Path, *, compiled: bool = False) -> None:
        self._folder = folder
        self._compile = {} if compiled else {"engines": []}
        folder.mkdir(parents=True, exist_ok=True)
        self._key = secret_file(folder, _KEY).read_text()
        self._loaded: list[ServedModel] = []
        self._loop = asyncio.new_event_loop()
        self._app = create_app(self._settings(folder))
        self._server = self._loop.run_until_complete(self._create())
        self._app.state.server = self._server
        self._app.handlers = self._server.handlers()

    async def _create(self) -> ModelServer:
        return ModelServer(self._settings(self._folder), WorkerStatuses(None))

    def _settings(self, model: Path) -> ServingSettings:
        return ServingSettings.model_validate(
            {
                "listen": {"port": 1, "token_file": str(self._folder / _KEY)},
                "model": "model",
                "path": str(model),
                "cache": str(self._folder / "cache"),
                "compile": self._compile,
                # A loaded version answers at its first request; a busy machine may be slow.
                "limits": {"queue_ms": 600_000, "answer_seconds": 600},
                "access_log": 0.0,
            }
        )

    def load(self, model: Path) -> ServedModel:
        """Prepare, load and serve the version in a folder.

        Raises:
            UnfitError: it cannot be served.
            Exception: any error of a broken model.
        """
        settings = self._settings(model)
        source = source_of(settings, settings.alias)
        info = source.resolve()
        assert info is not None, f"{model} contains no model"
        folder = source.fetch(info)
        with quiet():
            preparation.prepare(folder, settings)
            served = load(info, folder, settings)
        self._loaded.append(served)
        self.use(served)
        return served

    def use(self, served: ServedModel) -> None:
        """Serve a version that was loaded before."""
        self._server.alias_watcher.current = served

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Response:
        """Return the application's response."""
        return self._loop.run_until_complete(self._post(path, body, headers))

    async def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Response:
        given = {"host": "127.0.0.1", "authorization": f"Bearer {self._key}", **headers}
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        received = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Response(sent[0]["status"], received, sent[1]["body"])

    def invocations(self, body: Any, content_type: str = JSON) -> Answer:
        """Return the answer to `body`: a text, bytes, or a JSON value."""
        text = as_text(body)
        body = text.encode() if isinstance(text, str) else text
        with quiet():
            response = self.post("/invocations", body, {"content-type": content_type})
        if response.status == 200:
            return Answer(200, read(response.body))
        return Answer(response.status, json.loads(response.body)["detail"])

    def close(self) -> None:
        """Close the versions and stop the threads."""
        self._server.alias_watcher.current = None
        self._server.batcher.close()
        self._server.batcher.join(5)
        for served in self._loaded:
            served.close()
        self._loop.close()
