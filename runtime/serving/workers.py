"""Several processes on one port: a parent which holds the socket, starts workers and starts anew those which end."""

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

from .telemetry.worker_status import Board

__all__ = ["Workers", "end_with_parent"]

_log = logging.getLogger(__name__)
_TICK_SECONDS = 0.1
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.2, 10.0
_STABLE_SECONDS = 30.0


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    started: float
    lifeline: int


class Workers:
    """The workers of one server.

    Each has the read end of a pipe, whose write end only the parent holds: when the parent dies, however it does, the
    workers see its end and end too.

    Args:
        settings_file: handed to each.
        listening: the socket they share.
        count: how many.
        grace: seconds which they have to end.
    """

    def __init__(self, settings_file: Path, listening: socket.socket, count: int, grace: float) -> None:
        self._settings_file = settings_file
        self._socket = listening
        self._count = count
        self._grace = grace
        self._folder = Path(tempfile.mkdtemp(prefix="tidemill-serving-"))
        self._board = Board(self._folder)
        self._workers: dict[int, _Worker] = {}
        self._pauses = dict.fromkeys(range(count), _FIRST_PAUSE_SECONDS)
        self._due = dict.fromkeys(range(count), 0.0)
        self._ending = False

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        try:
            while not self._ending:
                self._tend()
                time.sleep(_TICK_SECONDS)
        finally:
            self._stop()
            shutil.rmtree(self._folder, ignore_errors=True)
        return 0

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._ending = True

    def _tend(self) -> None:
        now = time.monotonic()
        for index in range(self._count):
            worker = self._workers.get(index)
            if worker is None:
                if now >= self._due[index]:
                    self._workers[index] = self._start(index)
            elif (code := worker.process.poll()) is not None:
                self._bury(index, worker)
                stable = now - worker.started > _STABLE_SECONDS
                pause = _FIRST_PAUSE_SECONDS if stable else min(self._pauses[index] * 2, _LAST_PAUSE_SECONDS)
                self._pauses[index], self._due[index] = pause, now + pause
                _log.error("a worker ended; it is started anew", extra={"worker": index, "code": code, "pause": pause})

    def _start(self, index: int) -> _Worker:
        theirs, ours = os.pipe()
        try:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tidemill.runtime.serving",
                    "--settings",
                    str(self._settings_file),
                    "--worker",
                    f"{index},{self._socket.fileno()},{theirs},{self._folder}",
                ],
                pass_fds=(self._socket.fileno(), theirs),
                # A Ctrl-C is for the parent, which ends its workers in order.
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        return _Worker(process, time.monotonic(), ours)

    def _bury(self, index: int, worker: _Worker) -> None:
        del self._workers[index]
        os.close(worker.lifeline)
        self._board.bury(index, worker.process.pid)

    def _stop(self) -> None:
        for worker in self._workers.values():
            worker.process.terminate()
        until = time.monotonic() + self._grace
        for index, worker in list(self._workers.items()):
            try:
                worker.process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                _log.error("a worker does not end; it is killed", extra={"worker": index})
                worker.process.kill()
                worker.process.wait()
            os.close(worker.lifeline)


def end_with_parent(lifeline: int) -> None:
    """Have this process end by SIGTERM when its parent is gone, which closes the other end of `lifeline`."""

    def wait() -> None:
        os.read(lifeline, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
