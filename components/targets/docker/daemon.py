"""What is asked of the daemon when contents move: volumes, networks, images, containers of one's own. No Pulumi."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...provider.docker.daemon import STACK, put, require_own, talking
from .naming import Names

if TYPE_CHECKING:
    from docker import DockerClient

__all__ = [
    "STORE",
    "have_image",
    "make_volume",
    "remove_container",
    "remove_network",
    "remove_volume",
    "store_volume",
    "volumes_of",
]

STORE = "tidemill.store"
"""Label of a volume which holds data, with the name of its store."""


def have_image(client: DockerClient, image: str) -> None:
    """Pull `image` where the daemon has it not.

    Raises:
        PlatformError: it cannot be had.
    """
    import docker.errors

    with talking(image):
        try:
            client.api.inspect_image(image)
        except docker.errors.ImageNotFound:
            client.images.pull(image)


def remove_container(client: DockerClient, name: str, *, grace: int = 0) -> None:
    """Remove a container, if it is there; it has `grace` seconds to end in peace."""
    import docker.errors

    with talking(name):
        try:
            if grace:
                client.api.stop(name, timeout=grace)
            client.api.remove_container(name, v=True, force=True)
        except docker.errors.NotFound:
            return


def remove_network(client: DockerClient, name: str) -> None:
    """Remove a network, if it is there."""
    with talking(name):
        for network in client.api.networks(names=[name]):
            if network["Name"] == name:
                client.api.remove_network(network["Id"])


def volumes_of(client: DockerClient, stack: str) -> list[dict[str, Any]]:
    """Return the volumes of a stack, as the daemon tells of them."""
    with talking("volumes"):
        found: Any = client.api.volumes(filters={"label": f"{STACK}={stack}"})
    return sorted(found["Volumes"] or (), key=lambda volume: str(volume["Name"]))


def store_volume(client: DockerClient, names: Names, name: str, owner: int) -> str:
    """Return the volume of the store `name`; where it is not there, it is made as `up` would.

    Raises:
        RefusedError: it is another stack's, or nobody's.
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
    """Make a volume of the user `owner` with `files`: path -> content and mode."""
    with talking(volume):
        client.api.create_volume(name=volume, labels=labels)
        put(client, volume, files or {}, owner)


def remove_volume(client: DockerClient, volume: str) -> None:
    """Remove a volume and all in it, if it is there."""
    import docker.errors

    with talking(volume):
        try:
            client.api.remove_volume(volume)
        except docker.errors.NotFound:
            return
