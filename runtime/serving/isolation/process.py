"""Starts and calls the process of an isolated model: a socket carries calls, and closing a pipe ends the process."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from .environment import child_environment

_HOST: Final = Path(__file__).resolve().parent / "host.py"
_LENGTHS = struct.Struct("!IQ")
_HEADER_BYTES: Final = 1 << 20


class ProcessGoneError(Exception):
    """The process did not answer; the message says why."""


class ModelProcess:
    """A running host: the watcher process and the model's process, its child.

    Attributes:
        pid: of the model's process; its caller sets it from the first answer.
    """

    def __init__(self, environment: Path, variables: Mapping[str, str], message_bytes: int) -> None:
        self.pid: int | None = None
        self._message_bytes = message_bytes
        self._stop_lock = threading.Lock()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - `stop` closes it
        self._channel, theirs = socket.socketpair()
        read, self._lifeline = os.pipe()
        argv = [str(environment / "bin" / "python"), "-I", str(_HOST), str(theirs.fileno()), str(read)]
        try:
            self._watcher = subprocess.Popen(
                argv,
                cwd=environment,
                env={**child_environment(), **variables},
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                pass_fds=(theirs.fileno(), read),
                start_new_session=True,
            )
        except BaseException:
            os.close(self._lifeline)
            self._channel.close()
            self._output.close()
            raise
        finally:
            theirs.close()
            os.close(read)

    def wait(self) -> str:
        """Wait until the process ends and return the reason; a call in progress then fails."""
        code = self._watcher.wait()
        self._kill()
        return _exit_reason(code)

    def call(self, header: Mapping[str, Any], body: memoryview, seconds: float) -> tuple[dict[str, Any], memoryview]:
        """Send a message and return the header and body of the answer.

        Raises:
            ProcessGoneError: no valid answer came within `seconds`.
        """
        until = time.monotonic() + seconds
        text = json.dumps(header).encode()
        try:
            for part in (_LENGTHS.pack(len(text), len(body)) + text, body):
                self._limit_wait(until)
                self._channel.sendall(part)
            header_size, body_size = _LENGTHS.unpack(self._receive(_LENGTHS.size, until))
            if header_size > _HEADER_BYTES or body_size > self._message_bytes:
                raise ProcessGoneError(f"its answer of {body_size} bytes is too large")
            answer: dict[str, Any] = json.loads(bytes(self._receive(header_size, until)))
            return answer, self._receive(body_size, until)
        except TimeoutError:
            raise ProcessGoneError(f"it did not answer in {seconds:g} s") from None
        except (OSError, EOFError):
            # It has ended, or is about to end.
            with suppress(subprocess.TimeoutExpired):
                raise ProcessGoneError(_exit_reason(self._watcher.wait(5))) from None
            raise ProcessGoneError("it closed the connection") from None
        except ValueError:
            raise ProcessGoneError("its answer is not a message") from None

    def _limit_wait(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._channel.settimeout(left)

    def _receive(self, size: int, until: float) -> memoryview:
        content = memoryview(bytearray(size))
        received = 0
        while received < size:
            self._limit_wait(until)
            count = self._channel.recv_into(content[received:])
            if not count:
                raise EOFError
            received += count
        return content

    def _kill(self) -> None:
        """Kill the model's process group if the watcher was killed before it could do so."""
        if self.pid is not None and self._watcher.returncode < 0:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def last_line(self) -> str:
        """Return the last line that it printed while it loaded the model."""
        if self._output.closed:
            return ""
        self._output.seek(0)
        lines = self._output.read()[-4096:].decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:500] if lines else ""

    def stop(self) -> None:
        """Stop it and all processes that it started; may be called again."""
        with self._stop_lock:
            if self._lifeline < 0:
                return
            # When this closes, the watcher kills the model's process group and ends.
            os.close(self._lifeline)
            self._lifeline = -1
            try:
                self._watcher.wait(5)
            except subprocess.TimeoutExpired:
                self._watcher.kill()
                self._watcher.wait()
            self._kill()
            self._channel.close()
            self._output.close()


def _exit_reason(code: int) -> str:
    number = code - 128 if code > 128 else -code
    if number <= 0:
        return f"it ended with exit code {code}"
    try:
        return f"it was ended by {signal.Signals(number).name}"
    except ValueError:
        return f"it was ended by signal {number}"
