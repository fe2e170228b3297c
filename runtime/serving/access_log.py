"""One line for each request, without its features: written together and from a thread, so that nobody waits for it."""

from __future__ import annotations

import random
import sys
import threading
from collections import deque
from typing import Any

import msgspec
from tidemill.runtime.service import log_time

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
        self._lines: deque[tuple[Any, ...]] = deque(maxlen=_HELD)
        self._stopped = threading.Event()
        self._encode = msgspec.json.Encoder().encode
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def add(
        self,
        at: float,
        path: str,
        status: int,
        seconds: float,
        rows: int,
        request_id: str,
        client_request_id: str | None,
        key: str | None,
        version: str,
        trace: str | None,
    ) -> None:
        """Note an answered request: `at` in seconds since the epoch, `key` the name of the API key."""
        if status < 400 and self._share < 1 and random.random() >= self._share:  # noqa: S311 - a sample
            return
        self._lines.append((at, path, status, seconds, rows, request_id, client_request_id, key, version, trace))

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

    def _line(
        self,
        at: float,
        path: str,
        status: int,
        seconds: float,
        rows: int,
        request_id: str,
        client_request_id: str | None,
        key: str | None,
        version: str,
        trace: str | None,
    ) -> bytes:
        line: dict[str, Any] = {
            "time": log_time(at),
            "level": "info" if status < 500 else "warning",
            "logger": "access",
            "path": path,
            "status": status,
            "ms": round(seconds * 1000, 3),
            "rows": rows,
            "request_id": request_id,
            "key": key,
            "version": version,
        }
        if client_request_id is not None:
            line["client_request_id"] = client_request_id
        if trace is not None:
            line["trace_id"] = trace
        return self._encode(line)
