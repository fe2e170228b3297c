"""A container which does nothing but hold volumes and a place in a network, until something is run in it.

It is made of any image with Python, keeps no capability and its root read-only, and is removed at the end; one which
a killed run left is removed by the next, and ends by itself after a day.
"""

from __future__ import annotations

import importlib.resources
import io
import socket
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from ....runtime.common.errors import PlatformError
from ...provider.docker.daemon import talking
from .daemon import have_image, remove_container
from .naming import TMPFS, USER

if TYPE_CHECKING:
    from docker import DockerClient

__all__ = ["Conversation", "Helper"]

_DAY = "import time; time.sleep(86400)"
_PYTHON = ("python3", "-I", "-S", "-c")
_HEADER = 8
_STDOUT = 1


class Helper:
    """Such a container; used with `with`.

    Args:
        client: the daemon's.
        image: what it is made of.
        name: what it is called.
        labels: its labels.
        volumes: path -> volume.
        network: what it is on; none, where that is None.
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
        self._talks: list[Conversation] = []

    def __enter__(self) -> Self:
        api = self._client.api
        have_image(self._client, self._image)
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
        for talk in self._talks:
            talk.close()
        remove_container(self._client, self._name)

    def ask(self, *arguments: str) -> Conversation:
        """Run `inside` with `arguments` in it; it ends with the container at the latest."""
        text = importlib.resources.files(__package__ or "").joinpath("container_script.py").read_text(encoding="utf-8")
        talk = Conversation(self._client, self._name, [*_PYTHON, text, *arguments])
        self._talks.append(talk)
        return talk


class Conversation:
    """A program which runs in a container: what is sent is its input, what is read its output."""

    def __init__(self, client: DockerClient, container: str, argv: Sequence[str]) -> None:
        with talking(container):
            made: Any = client.api.exec_create(container, list(argv), stdin=True)
            # The response is kept by what holds its socket.
            self._raw: Any = client.api.exec_start(made["Id"], socket=True)
        self._socket: socket.socket = self._raw._sock
        self._socket.settimeout(None)
        self._container = container
        self._left = 0
        self._said = b""
        self._output = io.BufferedReader(_Output(self), 1 << 16)

    def send(self, data: bytes | memoryview) -> None:
        """Send it.

        Raises:
            PlatformError: the program has ended.
        """
        try:
            self._socket.sendall(data)
        except OSError:
            raise self.ended() from None

    def end(self) -> None:
        """Say that nothing more is sent."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        """Hang up; the program sees its input end."""
        self.end()
        self._raw._response.close()
        self._socket.close()

    def line(self) -> bytes:
        """Return the next line.

        Raises:
            PlatformError: the program has ended.
        """
        found = self._output.readline()
        if not found.endswith(b"\n"):
            raise self.ended()
        return found[:-1]

    def read(self, size: int) -> bytes:
        """Return the next bytes, `size` at most; none at the end."""
        return self._output.read1(size)

    def ended(self) -> PlatformError:
        """Return the error that it ended too early, with what it said."""
        said = self._said.decode(errors="replace").strip().splitlines()
        return PlatformError(
            f"what moves files ended ({said[-1] if said else 'no reason given'})", field=self._container
        )

    def _more(self, size: int) -> bytes:
        """Return bytes of the next frame of the output; none at the end."""
        while not self._left:
            header = self._exactly(_HEADER)
            if len(header) < _HEADER:
                return b""
            length = int.from_bytes(header[4:], "big")
            if header[0] == _STDOUT:
                self._left = length
            else:
                self._said = (self._said + self._exactly(length))[-4000:]
        data = self._socket.recv(min(self._left, size))
        self._left -= len(data)
        return data

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (more := self._socket.recv(size - len(data))):
            data += more
        return data


class _Output(io.RawIOBase):
    """The output of a conversation."""

    def __init__(self, talk: Conversation) -> None:
        super().__init__()
        self._talk = talk

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill some of `buffer`."""
        view = memoryview(cast("bytearray", buffer))
        data = self._talk._more(len(view))  # pyright: ignore[reportPrivateUsage] - they are one
        view[: len(data)] = data
        return len(data)
