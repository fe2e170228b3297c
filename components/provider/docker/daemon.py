"""The Docker daemon of this machine: its client and errors, owners of objects, files in volumes.

Files get into a volume through a container of an empty image that is never started. So no program runs, no image must
be pulled first, and the user of a container needs no access to files of this machine.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import tarfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ....runtime.common.errors import ConfigError, PlatformError, RefusedError, UnreachableError

if TYPE_CHECKING:
    from docker import DockerClient

STACK = "tidemill.stack"
"""Label with the stack that created an object."""

SERVICE = "tidemill.service"
"""Label of a container with the name of its service."""

_EMPTY = ("tidemill/empty", "1")
_MOUNT = "/volume"
# A job may print nothing for long, but the daemon itself answers immediately.
_TIMEOUT = 60
_HINT = "start it, or set DOCKER_HOST to the right one"


@functools.lru_cache(maxsize=4)
def connect(host: str | None = None) -> DockerClient:
    """Return a client of the daemon at `host`, by default that of DOCKER_HOST or of the standard socket.

    Raises:
        ConfigError: the daemon is on another machine.
        UnreachableError: the daemon does not answer.
    """
    import docker

    named = host or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    parts = urlsplit(named)
    if parts.scheme not in {"unix", "npipe"} and parts.hostname not in {"127.0.0.1", "localhost", "::1"}:
        raise ConfigError(
            "is a daemon on another machine, whose published ports cannot be reached from here",
            field="docker.host" if host else "DOCKER_HOST",
            value=named,
            hint="use a daemon of this machine, or run tidemill on that machine",
        )
    if parts.scheme == "unix" and not Path(parts.path).exists():
        raise UnreachableError("no Docker daemon listens there", field="Docker", value=named, hint=_HINT)
    with talking(named):
        client = docker.DockerClient(base_url=named, timeout=_TIMEOUT)
        try:
            client.ping()
        except BaseException:
            client.close()
            raise
    return client


@contextlib.contextmanager
def talking(about: str) -> Generator[None]:
    """Turn the SDK's errors into tidemill's; `about` is the object of the request.

    Raises:
        UnreachableError: the daemon does not answer.
        PlatformError: the daemon refuses the request.
    """
    import docker.errors
    import requests

    try:
        yield
    except docker.errors.APIError as error:
        raise PlatformError(f"Docker refuses: {error.explanation or error}", field=about) from None
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise UnreachableError(
            f"the Docker daemon does not answer ({type(error).__name__})", field=about, hint=_HINT
        ) from None


def require_own(kind: str, name: str, labels: Mapping[str, str] | None, stack: str) -> None:
    """Check that an object belongs to `stack`.

    Raises:
        RefusedError: another stack owns it, or it has no owner.
    """
    owner = (labels or {}).get(STACK)
    if owner != stack:
        whose = f"belongs to the stack {owner!r}" if owner else "already exists, and no stack created it"
        raise RefusedError(f"this {kind} {whose}", field=name, hint="remove or rename it, or rename this stack")


def put(client: DockerClient, volume: str, files: Mapping[str, tuple[bytes, int]], owner: int) -> None:
    """Write `files` (path -> content and mode) into `volume`, and make `owner` its only user."""
    container = client.api.create_container(
        image=_empty_image(client),
        command=["none"],
        host_config=client.api.create_host_config(binds={volume: {"bind": _MOUNT, "mode": "rw"}}, network_mode="none"),
    )["Id"]
    try:
        if not client.api.put_archive(container, "/", _archive(files, owner)):
            raise PlatformError("cannot write files into the volume", field=volume)
    finally:
        client.api.remove_container(container, force=True)


def _archive(files: Mapping[str, tuple[bytes, int]], owner: int) -> bytes:
    """Return a tar file of `files` below the mount point; the same input gives the same bytes."""
    folders = {_MOUNT.lstrip("/")}
    for path in files:
        parts = path.split("/")[:-1]
        folders |= {"/".join([_MOUNT.lstrip("/"), *parts[: length + 1]]) for length in range(len(parts))}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in sorted(folders):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o700
            entry.uid = entry.gid = owner
            tar.addfile(entry)
        for path, (content, mode) in sorted(files.items()):
            entry = tarfile.TarInfo(f"{_MOUNT.lstrip('/')}/{path}")
            entry.mode, entry.size = mode, len(content)
            entry.uid = entry.gid = owner
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _empty_image(client: DockerClient) -> str:
    """Return an empty image, creating it on first use."""
    import docker.errors

    name = ":".join(_EMPTY)
    try:
        client.api.inspect_image(name)
    except docker.errors.ImageNotFound:
        nothing: Any = b"\0" * 1024  # the end of a tar file
        client.api.import_image_from_data(nothing, repository=_EMPTY[0], tag=_EMPTY[1])
    return name
