"""A temporary container for access to volumes and to a network.

It runs any image with Python, without capabilities and with a read-only root, and is removed at the end. If a run is
killed, the next run removes its container; otherwise the container ends after a day.
"""

from __future__ import annotations

import inspect
import io
import socket
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from ....runtime.common.errors import PlatformError
from ...images.container_layout import USER
from ...provider.docker.daemon import talking
from .. import container_script
from .daemon import ensure_image, remove_container
from .naming import TMPFS

if TYPE_CHECKING:
    from docker import DockerClient

_DAY = "import time; time.sleep(86400)"
_PYTHON = ("python3", "-I", "-S", "-c")
_HEADER = 8
_STDOUT = 1


class ScratchContainer:
    """Runs the container; use it with `with`.

    Args:
        client: the daemon's client.
        image: its image.
        name: its name.
        labels: its labels.
        volumes: path -> volume.
        network: its network, or None for none.
    """

    def __init__(
        self,
        client: DockerClient,
        image: str,
        name: str,
        labels: Mapping[str, str],
        *,
        volumes: Mapping[str, str] | None = None,
        network: str | None = None,
    ) -> None:
        self._client = client
        self._image = image
        self._name = name
        self._labels = labels
        self._volumes = volumes or {}
        self._network = network
        self._processes: list[ContainerProcess] = []

    def __enter__(self) -> Self:
        api = self._client.api
        ensure_image(self._client, self._image)
        remove_container(self._client, self._name)
        with talking(self._name):
            host = api.create_host_config(
                binds={volume: {"bind": path, "mode": "rw,nocopy"} for path, volume in self._volumes.items()},
                network_mode=self._network or "none",
                read_only=True,
                tmpfs=dict(TMPFS),
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true"],
                init=True,
                auto_remove=True,
                mem_limit=1 << 30,
                pids_limit=256,
            )
            api.create_container(
                image=self._image,
                name=self._name,
                entrypoint=[*_PYTHON, _DAY],
                command=[],
                user=f"{USER}:{USER}",
                working_dir="/",
                labels=dict(self._labels),
                host_config=host,
            )
            api.start(self._name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.close()
        remove_container(self._client, self._name)

    def run_script(self, *arguments: str) -> ContainerProcess:
        """Start `container_script` with `arguments`; it ends when the container ends, at the latest."""
        script = inspect.getsource(container_script)
        process = ContainerProcess(self._client, self._name, [*_PYTHON, script, *arguments])
        self._processes.append(process)
        return process


class ContainerProcess:
    """A process in a container, with its input and output.

    Args:
        client: the daemon's client.
        container: the name of the container.
        argv: the command.
    """

    def __init__(self, client: DockerClient, container: str, argv: Sequence[str]) -> None:
        with talking(container):
            made: Any = client.api.exec_create(container, list(argv), stdin=True)
            # Keep the response: it owns the socket.
            self._raw: Any = client.api.exec_start(made["Id"], socket=True)
        self._socket: socket.socket = self._raw._sock
        self._socket.settimeout(None)
        self._container = container
        self._left = 0
        self._errors = b""
        self._output = io.BufferedReader(_Output(self), 1 << 16)

    def send(self, data: bytes | memoryview) -> None:
        """Write `data` to its input.

        Raises:
            PlatformError: the process has ended.
        """
        try:
            self._socket.sendall(data)
        except OSError:
            raise self.exit_error() from None

    def close_input(self) -> None:
        """Close its input."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        """Close the connection; the process sees the end of its input."""
        self.close_input()
        self._raw._response.close()
        self._socket.close()

    def line(self) -> bytes:
        """Return the next line of its output, without the line end.

        Raises:
            PlatformError: the process has ended.
        """
        found = self._output.readline()
        if not found.endswith(b"\n"):
            raise self.exit_error()
        return found[:-1]

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes of its output, or none at the end."""
        return self._output.read1(size)

    def exit_error(self) -> PlatformError:
        """Return the error that the process ended too early, with the last line of its standard error."""
        lines = self._errors.decode(errors="replace").strip().splitlines()
        return PlatformError(
            f"the process that moves files ended ({lines[-1] if lines else 'no reason given'})", field=self._container
        )

    def _next_output(self, size: int) -> bytes:
        """Return at most `size` bytes of the output's next frame, or none at the end."""
        while not self._left:
            header = self._exactly(_HEADER)
            if len(header) < _HEADER:
                return b""
            length = int.from_bytes(header[4:], "big")
            if header[0] == _STDOUT:
                self._left = length
            else:
                self._errors = (self._errors + self._exactly(length))[-4000:]
        data = self._socket.recv(min(self._left, size))
        self._left -= len(data)
        return data

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (more := self._socket.recv(size - len(data))):
            data += more
        return data


class _Output(io.RawIOBase):
    """The output of a process as a raw stream."""

    def __init__(self, process: ContainerProcess) -> None:
        super().__init__()
        self._process = process

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: object) -> int:
        """Read into `buffer`; return the number of bytes."""
        view = memoryview(cast("bytearray", buffer))
        data = self._process._next_output(len(view))  # pyright: ignore[reportPrivateUsage]
        view[: len(data)] = data
        return len(data)
