"""Calls of the Docker daemon for migrations: volumes, networks, images, containers. Imports no Pulumi."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...provider.docker.daemon import STACK, put, require_own, talking
from .naming import Names

if TYPE_CHECKING:
    from docker import DockerClient

STORE = "tidemill.store"
"""Label of a volume with data; its value is the name of the store."""


def ensure_image(client: DockerClient, image: str) -> None:
    """Pull `image` unless the daemon has it.

    Raises:
        PlatformError: it cannot be pulled.
    """
    import docker.errors

    with talking(image):
        try:
            client.api.inspect_image(image)
        except docker.errors.ImageNotFound:
            client.images.pull(image)


def remove_container(client: DockerClient, name: str, *, grace: int = 0) -> None:
    """Remove a container if it exists; give it `grace` seconds to end."""
    import docker.errors

    with talking(name):
        try:
            if grace:
                client.api.stop(name, timeout=grace)
            client.api.remove_container(name, v=True, force=True)
        except docker.errors.NotFound:
            return


def remove_network(client: DockerClient, name: str) -> None:
    """Remove a network if it exists."""
    with talking(name):
        for network in client.api.networks(names=[name]):
            if network["Name"] == name:
                client.api.remove_network(network["Id"])


def volumes_of(client: DockerClient, stack: str) -> list[dict[str, Any]]:
    """Return the volumes of a stack as the daemon describes them, by name."""
    with talking("volumes"):
        found: Any = client.api.volumes(filters={"label": f"{STACK}={stack}"})
    return sorted(found["Volumes"] or (), key=lambda volume: str(volume["Name"]))


def store_volume(client: DockerClient, names: Names, name: str, owner: int) -> str:
    """Return the volume of the store `name`; create it, as `up` does, if it does not exist.

    Raises:
        RefusedError: a volume of that name belongs to another stack, or to none.
    """
    import docker.errors

    volume = names.of(name)
    with talking(volume):
        try:
            found = client.api.inspect_volume(volume)
        except docker.errors.NotFound:
            make_volume(client, volume, names.labels(store=name), owner)
        else:
            require_own("volume", volume, found.get("Labels"), names.stack)
    return volume


def make_volume(
    client: DockerClient,
    volume: str,
    labels: dict[str, str],
    owner: int,
    files: dict[str, tuple[bytes, int]] | None = None,
) -> None:
    """Create a volume that belongs to the user `owner`, with `files`: path -> (content, mode)."""
    with talking(volume):
        client.api.create_volume(name=volume, labels=labels)
        put(client, volume, files or {}, owner)


def remove_volume(client: DockerClient, volume: str) -> None:
    """Remove a volume and its contents if it exists."""
    import docker.errors

    with talking(volume):
        try:
            client.api.remove_volume(volume)
        except docker.errors.NotFound:
            return
