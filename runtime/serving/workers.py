"""Several worker processes on one port: the parent holds the socket, starts the workers and restarts those that end."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from .engines.errors import UnfitError
from .telemetry.worker_status import WorkerStatuses

_log = logging.getLogger(__name__)
_TICK_SECONDS = 0.1
_MIN_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.2, 10.0
_STABLE_SECONDS = 30.0


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    started: float
    lifeline: int


class Workers:
    """The workers of one server.

    Each worker holds the read end of a pipe, and only the parent holds the write end: when the parent dies for any
    reason, the workers see the pipe close and stop.

    Args:
        settings_file: passed to each worker.
        listening: the shared socket.
        count: number of workers.
        grace: seconds in which they must stop.
    """

    def __init__(self, settings_file: Path, listening: socket.socket, count: int, grace: float) -> None:
        self._settings_file = settings_file
        self._socket = listening
        self._count = count
        self._grace = grace
        self._folder = Path(tempfile.mkdtemp(prefix="tidemill-serving-"))
        self._statuses = WorkerStatuses(self._folder)
        self._workers: dict[int, _Worker] = {}
        self._pauses = dict.fromkeys(range(count), _MIN_PAUSE_SECONDS)
        self._restart_at = dict.fromkeys(range(count), 0.0)
        self._stopping = False

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit code.

        Raises:
            UnfitError: the fixed version or folder can never serve.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request_stop)
        try:
            while not self._stopping:
                self._restart_ended()
                time.sleep(_TICK_SECONDS)
        finally:
            self._stop()
            shutil.rmtree(self._folder, ignore_errors=True)
        return 0

    def _request_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _restart_ended(self) -> None:
        now = time.monotonic()
        for index in range(self._count):
            worker = self._workers.get(index)
            if worker is None:
                if now >= self._restart_at[index]:
                    self._workers[index] = self._start(index)
            elif (code := worker.process.poll()) is not None:
                if (reason := self._statuses.gave_up()) is not None:
                    raise UnfitError(reason)
                self._retire(index, worker)
                stable = now - worker.started > _STABLE_SECONDS
                pause = _MIN_PAUSE_SECONDS if stable else min(self._pauses[index] * 2, _MAX_PAUSE_SECONDS)
                self._pauses[index], self._restart_at[index] = pause, now + pause
                _log.error(
                    "a worker ended; it will be restarted", extra={"worker": index, "code": code, "pause": pause}
                )

    def _start(self, index: int) -> _Worker:
        read_end, write_end = os.pipe()
        try:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tidemill.runtime.serving",
                    "--settings",
                    str(self._settings_file),
                    "--worker",
                    f"{index},{self._socket.fileno()},{read_end},{self._folder}",
                ],
                pass_fds=(self._socket.fileno(), read_end),
                # Only the parent receives a Ctrl-C; it stops its workers in order.
                start_new_session=True,
            )
        finally:
            os.close(read_end)
        return _Worker(process, time.monotonic(), write_end)

    def _retire(self, index: int, worker: _Worker) -> None:
        del self._workers[index]
        os.close(worker.lifeline)
        self._statuses.retire(index, worker.process.pid)

    def _stop(self) -> None:
        for worker in self._workers.values():
            worker.process.terminate()
        deadline = time.monotonic() + self._grace
        for index, worker in list(self._workers.items()):
            try:
                worker.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _log.error("a worker did not stop in time and is killed", extra={"worker": index})
                worker.process.kill()
                worker.process.wait()
            os.close(worker.lifeline)


def end_with_parent(lifeline: int) -> None:
    """Send SIGTERM to this process when its parent has ended, which closes the write end of `lifeline`."""

    def wait() -> None:
        os.read(lifeline, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
