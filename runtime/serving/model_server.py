"""The model server of one worker: creates its parts, connects them, starts and stops them."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pyarrow as pa

from ..common.service import token_of
from .codecs.json_strict import parse_json
from .http.access_log import AccessLog
from .http.admission import Admission
from .http.deadlines import Deadlines
from .http.errors import Problem
from .http.key_file import Use
from .http.keys import Keys
from .http.request_context import RequestContext
from .http.request_handler import Answer, RequestHandler, StartAnswer
from .inference.batcher import Batcher
from .inference.prediction import Inference
from .protocols.base import Decoder, EncodedResponse
from .protocols.registry import PROTOCOLS
from .recording.labels import LabelWriter, label_table, outside_range
from .recording.writer import CaptureWriter
from .settings import LimitSettings, ServingSettings
from .telemetry.metrics import ServingCollector, create_registry
from .telemetry.recent import Recent
from .telemetry.server_state import ServerState
from .telemetry.traffic import Traffic
from .telemetry.worker_status import WorkerStatuses
from .versions.alias_watcher import AliasWatcher
from .versions.in_flight import InFlightCalls
from .versions.loading import loader
from .versions.model import ServedModel
from .versions.shadow import Shadow
from .versions.source import source_of

_log = logging.getLogger(__name__)
_RETRY = {"Retry-After": "5"}
_CHECK_SECONDS = 0.5
_PUBLISH_SECONDS = 1.0
_SIBLINGS_SECONDS = 60.0


class ModelServer:
    """The parts of one worker. Create it on its event loop.

    Args:
        settings: of the server.
        statuses: of all workers.
        give_up: called on the loop with a sentence if the fixed version or folder can never serve.
    """

    def __init__(
        self, settings: ServingSettings, statuses: WorkerStatuses, give_up: Callable[[str], None] = lambda _: None
    ) -> None:
        self.settings = settings
        self._give_up = give_up
        self._loop = loop = asyncio.get_running_loop()
        self._capture_lock = threading.Lock()
        self.traffic = Traffic()
        self.recent = Recent()
        self.deadlines = Deadlines()
        self.log = AccessLog(settings.access_log)
        self.keys = Keys(token_of(settings.listen), settings.keys_file)
        self._in_flight = InFlightCalls()
        self.batcher = Batcher(
            settings.batch,
            self._in_flight,
            self._count_call,
            refuse_non_finite=settings.outputs.non_finite == "refuse",
        )
        self.admission = Admission(self.keys, settings.limits, self.batcher)
        load = loader(settings)
        self.alias_watcher = AliasWatcher(
            source_of(settings, settings.alias),
            load,
            poll_seconds=settings.poll_seconds,
            fixed=settings.path is not None or settings.version is not None,
            serve_without_alias=True,
            changed=self._publish_soon,
            swapped=_retire_on(loop, self._in_flight.retire),
            gave_up=functools.partial(_call_on, loop, self._end),
        )
        self.writer = (
            CaptureWriter(
                settings.capture,
                dropped=self._count_dropped,
                written=self._count_captured,
                removed=self._count_removed,
            )
            if settings.capture
            else None
        )
        self.labels = LabelWriter(settings.capture.directory) if settings.capture else None
        self.shadow: Shadow | None = None
        if settings.shadow is not None:
            watcher = AliasWatcher(
                source_of(settings, settings.shadow),
                load,
                poll_seconds=settings.poll_seconds,
                swapped=_retire_on(loop, lambda model: self.shadow.retire(model) if self.shadow else None),
            )
            self.shadow = Shadow(watcher, self.traffic, self.writer.take if self.writer else lambda _: None)
        self.state = ServerState(
            settings, statuses, self.alias_watcher, self.batcher, self.traffic, self.recent, self.shadow
        )
        self._statuses = statuses
        self._executor = ThreadPoolExecutor(max_workers=2, thread_name_prefix="bodies")
        self.registry = create_registry(
            ServingCollector(settings.model, self.state.worker_statuses, statuses.ended_traffic)
        )
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

    def handlers(self) -> dict[str, RequestHandler]:
        """Return the handlers of the hot routes by path, all of them for POST."""
        inference, name = self._inference, self.settings.model

        def handler(
            answer: Answer,
            check_load: Callable[[], None] = lambda: None,
            start_answer: StartAnswer | None = None,
            use: Use = "predict",
        ) -> RequestHandler:
            limits = self.settings.limits
            return RequestHandler(
                answer, self.admission, limits, self.deadlines, self._count_request, check_load, start_answer, use
            )

        def predictions(decoder: Decoder) -> RequestHandler:
            return handler(
                functools.partial(inference.answer, decoder),
                self.admission.check_queue,
                functools.partial(inference.begin_answer, decoder),
            )

        return {
            **{protocol.path_of(name): predictions(protocol.decode) for protocol in PROTOCOLS},
            "/labels": handler(self._keep_labels, use="label"),
        }

    async def start(self) -> None:
        """Start the threads and tasks; wait until a version serves if other workers can answer meanwhile."""
        if self.writer:
            self.writer.start()
        if self.labels:
            self.labels.start()
        self.alias_watcher.start()
        if self.shadow:
            self.shadow.alias_watcher.start()
        self._tasks = [asyncio.create_task(self._check()), asyncio.create_task(self._publish())]
        if any(status["served"] for status in self._statuses.others()):
            with suppress(TimeoutError):
                async with asyncio.timeout(_SIBLINGS_SECONDS):
                    while self.alias_watcher.current is None and self.alias_watcher.failure is None:
                        await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Stop all parts and write the captured requests. Call it after the last answer."""
        for task in self._tasks:
            task.cancel()
        self.deadlines.expire_all()
        watchers = [self.alias_watcher, *([self.shadow.alias_watcher] if self.shadow else [])]
        await asyncio.gather(*(asyncio.to_thread(watcher.stop) for watcher in watchers))
        self.batcher.close()
        await asyncio.to_thread(self.batcher.join, 5)
        if self.shadow:
            await asyncio.to_thread(self.shadow.close)
        self._executor.shutdown()
        for writer in (self.writer, self.labels):
            if writer:
                await asyncio.to_thread(writer.close)
        for watcher in watchers:
            if watcher.current is not None:
                watcher.current.close()
        self.state.publish()
        await asyncio.to_thread(self.log.close)

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            self.deadlines.check()
            self.keys.refresh()

    async def _publish(self) -> None:
        tuned = False
        while True:
            self.state.publish()
            if not tuned and self.alias_watcher.current is not None:
                tuned = True
                _tune_gc()
            await asyncio.sleep(_PUBLISH_SECONDS)

    def _end(self) -> None:
        self._give_up(self.state.error() or "the model cannot serve")

    def _publish_soon(self, _: AliasWatcher) -> None:
        # Not only each second: a sibling answers `/status` for this worker too.
        _call_on(self._loop, self.state.publish)

    def _count_request(self, context: RequestContext, status: int, seconds: float) -> None:
        if context.path != "/labels":
            self.traffic.answered(context.version, status, seconds, context.rows)
            self.recent.record(seconds, context.rows, status >= 400)
        self.log.add(context, status, seconds)

    def _count_call(self, rows: int, seconds: float) -> None:
        self.traffic.called(rows, seconds)
        self.recent.called(rows)

    def _count_captured(self, rows: int) -> None:
        with self._capture_lock:
            self.traffic.captured += rows

    def _count_dropped(self, rows: int) -> None:
        with self._capture_lock:
            self.traffic.dropped += rows

    def _count_removed(self) -> None:
        with self._capture_lock:
            self.traffic.capture_removed += 1

    async def _keep_labels(self, context: RequestContext, body: bytes) -> EncodedResponse:
        """Write the labels in `body` to disk, then acknowledge them."""
        if self.labels is None:
            raise Problem(404, "this server captures nothing, so it keeps no labels")
        loop = asyncio.get_running_loop()
        model = self.alias_watcher.current
        parse = functools.partial(
            label_table,
            limit=self.settings.limits.rows,
            target=model.target if model else None,
            version=model.info.version if model else "",
            allow_new=self.settings.labels.allow_new,
            needs_row=model is not None and not model.by_request,
            key=context.key,
        )
        table = await loop.run_in_executor(self._executor, _parse_labels, body, self.settings.limits, parse)
        try:
            await asyncio.wrap_future(self.labels.submit(table))
        except OSError as error:
            _log.error("labels could not be written", extra={"request_id": context.request_id, "error": str(error)})
            raise Problem(503, "the labels could not be kept; send them again", headers=_RETRY) from None
        self.traffic.labels += table.num_rows
        answer = {
            "accepted": table.num_rows,
            "outside_range": outside_range(table, model.target if model else None),
            "checked": model is not None and model.target.known,
            "request_id": context.request_id,
        }
        return EncodedResponse(json.dumps(answer).encode())


def _parse_labels(body: bytes, limits: LimitSettings, parse: Callable[[dict[str, Any]], pa.Table]) -> pa.Table:
    return parse(parse_json(body, depth=limits.depth, text=limits.text, constants=True))


def _tune_gc() -> None:
    """Exclude all present objects from garbage collection and run it less often: it pauses every request."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _retire_on(
    loop: asyncio.AbstractEventLoop, retire: Callable[[ServedModel], None]
) -> Callable[[ServedModel | None, ServedModel], None]:
    """Return a callback for the watcher's thread; it retires the old version on `loop`."""

    def swapped(old: ServedModel | None, _: ServedModel) -> None:
        if old is not None:
            _call_on(loop, functools.partial(retire, old))

    return swapped


def _call_on(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Run `call` on `loop`, from another thread."""
    with suppress(RuntimeError):  # the loop is closed: the process stops
        loop.call_soon_threadsafe(call)
