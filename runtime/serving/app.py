"""The model server: its parts, put together, and its routes.

FastAPI is the application; the routes which are asked ten thousand times a second are bare ASGI in it.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import logging
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress

import pyarrow as pa
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from ..common.service import token_of
from . import page
from .codecs.json_strict import parse_json
from .http.access_log import AccessLog
from .http.admission import Admission
from .http.errors import Problem
from .http.keys import Keys
from .http.request_handler import Call, Done, Exchange, Receive, Scope, Send, Watch
from .http.routes import add_routes
from .inference.batcher import Batcher
from .inference.prediction import Inference
from .protocols.base import Decoder, EncodedResponse
from .protocols.registry import PROTOCOLS
from .recording.labels import LabelWriter, label_table
from .recording.writer import CaptureWriter
from .settings import LimitSettings, ServingSettings
from .telemetry.metrics import ServingCollector, registry_of
from .telemetry.server_state import ServerState
from .telemetry.traffic import Traffic
from .telemetry.worker_status import Board
from .versions.alias_watcher import AliasWatcher
from .versions.in_flight import InFlightCalls
from .versions.loading import loader
from .versions.model import ServedModel
from .versions.shadow import Shadow
from .versions.source import source_of

__all__ = ["ModelServer", "create_app"]

_log = logging.getLogger(__name__)
_RETRY = {"Retry-After": "5"}
_LOOK_SECONDS = 0.5
_SAY_SECONDS = 1.0
_SIBLINGS_SECONDS = 60.0


class ModelServer:
    """The parts of one worker. Made on its event loop."""

    def __init__(self, settings: ServingSettings, board: Board) -> None:
        self.settings = settings
        self._loop = loop = asyncio.get_running_loop()
        self._counting = threading.Lock()
        self.traffic = Traffic()
        self.recent = page.Recent()
        self.watch = Watch()
        self.log = AccessLog(settings.access_log)
        self.keys = Keys(token_of(settings.listen), settings.keys_file)
        self._in_flight = InFlightCalls()
        self.batcher = Batcher(settings.batch, self._in_flight, self._called)
        self.admission = Admission(self.keys, settings.limits, self.batcher)
        load = loader(settings)
        self.alias_watcher = AliasWatcher(
            source_of(settings, settings.alias),
            load,
            poll_seconds=settings.poll_seconds,
            changed=self._looked,
            swapped=_retiring(loop, self._in_flight.retire),
        )
        self.writer = (
            CaptureWriter(settings.capture, dropped=self._dropped, written=self._captured) if settings.capture else None
        )
        self.labels = LabelWriter(settings.capture.directory) if settings.capture else None
        self.shadow: Shadow | None = None
        if settings.shadow is not None:
            watcher = AliasWatcher(
                source_of(settings, settings.shadow),
                load,
                poll_seconds=settings.poll_seconds,
                swapped=_retiring(loop, lambda model: self.shadow.retire(model) if self.shadow else None),
            )
            self.shadow = Shadow(watcher, self.traffic, self.writer.take if self.writer else lambda _: None)
        self.state = ServerState(
            settings, board, self.alias_watcher, self.batcher, self.traffic, self.recent, self.shadow
        )
        self._board = board
        self._executor = ThreadPoolExecutor(max_workers=2, thread_name_prefix="bodies")
        self.registry = registry_of(ServingCollector(settings.model, self.state.notices, board.ended))
        self._inference = Inference(
            settings,
            self.alias_watcher,
            self.batcher,
            self._in_flight,
            self.admission,
            self._executor,
            self.writer.take if self.writer else None,
            self.shadow,
        )

    def exchanges(self) -> dict[str, Exchange]:
        """Return the hot routes: path -> application, all of them POST."""
        inference, name = self._inference, self.settings.model

        def of(
            work: Callable[[Call, bytes], Awaitable[EncodedResponse]],
            gate: Callable[[], None] = lambda: None,
            begin: Callable[[Call, bytes, Done], None] | None = None,
        ) -> Exchange:
            return Exchange(work, self.admission, self.settings.limits, self.watch, self._finished, gate, begin)

        def asks(decoder: Decoder) -> Exchange:
            return of(
                functools.partial(inference.answer, decoder),
                self.admission.check_queue,
                functools.partial(inference.begin_answer, decoder),
            )

        return {
            **{protocol.path_of(name): asks(protocol.decode) for protocol in PROTOCOLS},
            "/labels": of(self._label),
        }

    async def start(self) -> None:
        """Start what runs besides the requests."""
        if self.writer:
            self.writer.start()
        if self.labels:
            self.labels.start()
        self.alias_watcher.start()
        if self.shadow:
            self.shadow.alias_watcher.start()
        self._tasks = [asyncio.create_task(self._look()), asyncio.create_task(self._say())]
        if any(notice["served"] for notice in self._board.others()):
            # The siblings answer meanwhile; one which is not ready would only refuse.
            with suppress(TimeoutError):
                async with asyncio.timeout(_SIBLINGS_SECONDS):
                    while self.alias_watcher.current is None and self.alias_watcher.failure is None:
                        await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """End it all; after the last answer, write what is captured."""
        for task in self._tasks:
            task.cancel()
        self.watch.end()
        watchers = [self.alias_watcher, *([self.shadow.alias_watcher] if self.shadow else [])]
        await asyncio.gather(*(asyncio.to_thread(watcher.stop) for watcher in watchers))
        self.batcher.close()
        await asyncio.to_thread(self.batcher.join, 5)
        if self.shadow:
            await asyncio.to_thread(self.shadow.close)
        self._executor.shutdown()
        for closing in (self.writer, self.labels):
            if closing:
                await asyncio.to_thread(closing.close)
        for watcher in watchers:
            if watcher.current is not None:
                watcher.current.close()
        self.state.say()
        await asyncio.to_thread(self.log.close)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.watch.look()
            self.keys.refresh()

    async def _say(self) -> None:
        settled = False
        while True:
            self.state.say()
            if not settled and self.alias_watcher.current is not None:
                settled = True
                _settle()
            await asyncio.sleep(_SAY_SECONDS)

    def _finished(self, call: Call, status: int, seconds: float) -> None:
        counted = call.path != "/labels"
        if counted:
            self.traffic.answered(call.version, status, seconds, call.rows)
            self.recent.record(seconds, call.rows, status >= 400)
        self.log.add(call, status, seconds)

    def _looked(self, _: AliasWatcher) -> None:
        # At once: what a sibling says for this one should not be a second old.
        _on(self._loop, self.state.say)

    def _called(self, rows: int, seconds: float) -> None:
        self.traffic.called(rows, seconds)
        self.recent.called(rows)

    def _captured(self, rows: int) -> None:
        with self._counting:
            self.traffic.captured += rows

    def _dropped(self, rows: int) -> None:
        with self._counting:
            self.traffic.dropped += rows

    async def _label(self, call: Call, body: bytes) -> EncodedResponse:
        """Keep the labels in `body`; answered when they are on the disk."""
        if self.labels is None:
            raise Problem(404, "this server captures nothing, so it keeps no labels")
        loop = asyncio.get_running_loop()
        table = await loop.run_in_executor(self._executor, _labels_in, body, self.settings.limits)
        try:
            await asyncio.wrap_future(self.labels.submit(table))
        except OSError as error:
            _log.error("labels could not be written", extra={"request_id": call.request_id, "error": str(error)})
            raise Problem(503, "the labels could not be kept; send them again", headers=_RETRY) from None
        self.traffic.labels += table.num_rows
        return EncodedResponse(json.dumps({"accepted": table.num_rows, "request_id": call.request_id}).encode())


def _labels_in(body: bytes, limits: LimitSettings) -> pa.Table:
    return label_table(parse_json(body, depth=limits.depth, text=limits.text), limits.rows)


def _settle() -> None:
    """Let the collector of garbage leave alone what is there for good, and come less often: it stops every request."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _retiring(
    loop: asyncio.AbstractEventLoop, retire: Callable[[ServedModel], None]
) -> Callable[[ServedModel | None, ServedModel], None]:
    """Return what a watcher calls from its thread, to have the old version retired on the loop."""

    def swapped(old: ServedModel | None, _: ServedModel) -> None:
        if old is not None:
            _on(loop, functools.partial(retire, old))

    return swapped


def _on(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Have `call` made on `loop`, from another thread."""
    with suppress(RuntimeError):  # the loop is closed: the process ends
        loop.call_soon_threadsafe(call)


class App(FastAPI):
    """FastAPI, but for the hot routes, which it hands on before anything of its own runs.

    Attributes:
        hot: path -> what answers it.
        straight: the same, for connections which ask it themselves: the path as it is sent -> path and what answers it.
    """

    hot: Mapping[str, Exchange]
    straight: dict[bytes, tuple[str, Exchange]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and scope["method"] == "POST" and (exchange := self.hot.get(scope["path"])):
            await exchange(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(settings: ServingSettings, board: Board | None = None) -> App:
    """Return the application of one worker; its parts are made when it starts.

    Raises:
        TidemillError: a secret cannot be read.
    """
    token_of(settings.listen)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        server = ModelServer(settings, board or Board(None))
        app.state.server = server
        assert isinstance(app, App)  # noqa: S101 - it is that which is made below
        app.hot = server.exchanges()
        await server.start()
        app.straight.update({path.encode(): (path, exchange) for path, exchange in app.hot.items()})
        yield
        await server.stop()

    app = App(title=f"tidemill: {settings.model}", lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.hot, app.straight = {}, {}
    add_routes(app)

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, StarletteHTTPException)  # noqa: S101 - registered for that alone
        return Problem(error.status_code, str(error.detail), headers=error.headers).response()

    app.add_exception_handler(StarletteHTTPException, refused)
    return app
