"""The process in which an isolated model runs, and the ways to it: a socket for calls, and a pipe it lives by."""

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

__all__ = ["GoneError", "ModelProcess"]

_HOST: Final = Path(__file__).resolve().parent / "host.py"
_LENGTHS = struct.Struct("!IQ")
_HEADER_BYTES: Final = 1 << 20


class GoneError(Exception):
    """The process gave no answer; the message says why."""


class ModelProcess:
    """The watcher, the model's process below it, and the ways to both."""

    def __init__(self, environment: Path, variables: Mapping[str, str], message_bytes: int) -> None:
        self.pid: int | None = None
        self._message_bytes = message_bytes
        self._ended = threading.Lock()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - `end` closes it
        self._channel, theirs = socket.socketpair()
        read, self._lifeline = os.pipe()
        argv = [str(environment / "bin" / "python"), "-I", str(_HOST), str(theirs.fileno()), str(read)]
        try:
            self._watcher = subprocess.Popen(
                argv,
                cwd=environment,
                env={**child_environment(), **variables},
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                pass_fds=(theirs.fileno(), read),
                start_new_session=True,
            )
        except BaseException:
            os.close(self._lifeline)
            self._channel.close()
            self._said.close()
            raise
        finally:
            theirs.close()
            os.close(read)

    def wait(self) -> str:
        """Wait for its end; return how it came. A call under way then sees that nobody is left to answer."""
        code = self._watcher.wait()
        self._kill()
        return _how(code)

    def ask(self, header: Mapping[str, Any], body: memoryview, seconds: float) -> tuple[dict[str, Any], memoryview]:
        """Return the header and the body of its answer.

        Raises:
            GoneError: it gave none.
        """
        until = time.monotonic() + seconds
        text = json.dumps(header).encode()
        try:
            for part in (_LENGTHS.pack(len(text), len(body)) + text, body):
                self._patience(until)
                self._channel.sendall(part)
            described, length = _LENGTHS.unpack(self._exactly(_LENGTHS.size, until))
            if described > _HEADER_BYTES or length > self._message_bytes:
                raise GoneError(f"its answer of {length} bytes is too large")
            answer: dict[str, Any] = json.loads(bytes(self._exactly(described, until)))
            return answer, self._exactly(length, until)
        except TimeoutError:
            raise GoneError(f"it did not answer in {seconds:g} s") from None
        except (OSError, EOFError):
            # It is gone, or about to be.
            with suppress(subprocess.TimeoutExpired):
                raise GoneError(_how(self._watcher.wait(5))) from None
            raise GoneError("it closed the connection") from None
        except ValueError:
            raise GoneError("its answer is none") from None

    def _patience(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._channel.settimeout(left)

    def _exactly(self, size: int, until: float) -> memoryview:
        content = memoryview(bytearray(size))
        got = 0
        while got < size:
            self._patience(until)
            count = self._channel.recv_into(content[got:])
            if not count:
                raise EOFError
            got += count
        return content

    def _kill(self) -> None:
        """Kill the model's group where the watcher was killed and could not."""
        if self.pid is not None and self._watcher.returncode < 0:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def said(self) -> str:
        """Return the last line it has printed while it loaded the model."""
        if self._said.closed:
            return ""
        self._said.seek(0)
        lines = self._said.read()[-4096:].decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:500] if lines else ""

    def end(self) -> None:
        """End it and whatever it has started; may be called again."""
        with self._ended:
            if self._lifeline < 0:
                return
            # The watcher kills the group of the model when this closes, and ends.
            os.close(self._lifeline)
            self._lifeline = -1
            try:
                self._watcher.wait(5)
            except subprocess.TimeoutExpired:
                self._watcher.kill()
                self._watcher.wait()
            self._kill()
            self._channel.close()
            self._said.close()


def _how(code: int) -> str:
    number = code - 128 if code > 128 else -code
    if number <= 0:
        return f"it ended with exit code {code}"
    try:
        return f"it was ended by {signal.Signals(number).name}"
    except ValueError:
        return f"it was ended by signal {number}"
