"""One line for each request, without its features: written together and from a thread, so that nobody waits for it."""

from __future__ import annotations

import random
import sys
import threading
from collections import deque
from typing import Any

import msgspec

from ...common.service import log_time
from .request_handler import Call

__all__ = ["AccessLog"]

_EVERY_SECONDS = 0.25
_HELD = 50_000


class AccessLog:
    """Writes lines to standard output.

    Args:
        share: of the successful requests, which are logged; those which failed always are.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        # Bounded: where nobody reads the output, the oldest lines go.
        self._lines: deque[tuple[Call, int, float]] = deque(maxlen=_HELD)
        self._stopped = threading.Event()
        self._encode = msgspec.json.Encoder().encode
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def add(self, call: Call, status: int, seconds: float) -> None:
        """Note a request which was answered with `status` after `seconds`."""
        if status < 400 and self._share < 1 and random.random() >= self._share:  # noqa: S311 - a sample
            return
        self._lines.append((call, status, seconds))

    def close(self) -> None:
        """Write what is left, and end."""
        self._stopped.set()
        self._thread.join(2)

    def _run(self) -> None:
        while not self._stopped.wait(_EVERY_SECONDS):
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
            # The disk of the log is full, or its reader is gone; answers matter more.
            return

    def _line(self, call: Call, status: int, seconds: float) -> bytes:
        line: dict[str, Any] = {
            "time": log_time(call.received_at),
            "level": "info" if status < 500 else "warning",
            "logger": "access",
            "path": call.path,
            "status": status,
            "ms": round(seconds * 1000, 3),
            "rows": call.rows,
            "request_id": call.request_id,
            "key": call.key,
            "version": call.version,
        }
        if call.client_request_id is not None:
            line["client_request_id"] = call.client_request_id
        if call.trace is not None:
            line["trace_id"] = call.trace[3:35]
        return self._encode(line)
