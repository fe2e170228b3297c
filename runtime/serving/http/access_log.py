"""The access log: one line for each request, without its features, written in batches by a thread."""

from __future__ import annotations

import random
import sys
import threading
from collections import deque
from typing import Any

import msgspec

from ...common.service import log_time
from .request_context import RequestContext

_WRITE_SECONDS = 0.25
_MAX_LINES = 50_000


class AccessLog:
    """Writes lines to standard output.

    Args:
        share: share of the successful requests to log; failed requests are always logged.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        # Bounded: if the output cannot be written, the oldest lines are dropped.
        self._lines: deque[tuple[RequestContext, int, float]] = deque(maxlen=_MAX_LINES)
        self._stopped = threading.Event()
        self._encode = msgspec.json.Encoder().encode
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def add(self, context: RequestContext, status: int, seconds: float) -> None:
        """Log a request that was answered with `status` after `seconds`."""
        if status < 400 and self._share < 1 and random.random() >= self._share:  # noqa: S311 - a sample
            return
        self._lines.append((context, status, seconds))

    def close(self) -> None:
        """Write the pending lines and stop the thread."""
        self._stopped.set()
        self._thread.join(2)

    def _run(self) -> None:
        while not self._stopped.wait(_WRITE_SECONDS):
            self._write()
        self._write()

    def _write(self) -> None:
        lines: list[bytes] = []
        while self._lines:
            lines.append(self._line(*self._lines.popleft()))
        if not lines:
            return
        try:
            sys.stdout.buffer.write(b"\n".join(lines) + b"\n")
            sys.stdout.buffer.flush()
        except OSError:
            return  # the disk is full or the reader is gone; answering matters more

    def _line(self, context: RequestContext, status: int, seconds: float) -> bytes:
        line: dict[str, Any] = {
            "time": log_time(context.received_at),
            "level": "info" if status < 500 else "warning",
            "logger": "access",
            "path": context.path,
            "status": status,
            "ms": round(seconds * 1000, 3),
            "rows": context.rows,
            "request_id": context.request_id,
            "key": context.key,
            "version": context.version,
        }
        if context.client_request_id is not None:
            line["client_request_id"] = context.client_request_id
        if context.trace is not None:
            line["trace_id"] = context.trace[3:35]
        return self._encode(line)
