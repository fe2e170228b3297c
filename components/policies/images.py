"""Images are pinned: one which is another tomorrow has been looked at by nobody."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .base import Finding, Resource, Rule, Situation, items
from .containers import containers_of

__all__ = ["RULES", "unpinned"]

_MEND = "name the version, or the digest as NAME@sha256:..."


def unpinned(reference: str) -> str | None:
    """Return what is wrong with an image's reference, or None.

    >>> unpinned("registry.example:5000/serving"), unpinned("lakefs:latest"), unpinned("lakefs:1.86.0")
    ('has no tag', 'has the tag latest', None)
    """
    name, _, digest = reference.partition("@")
    if digest:
        return None if re.fullmatch(r"sha256:[0-9a-f]{64}", digest) else "has a digest which is none"
    # An id of an image is the digest of what is in it.
    if re.fullmatch(r"(sha256:)?[0-9a-f]{64}", name):
        return None
    _, colon, tag = name.rpartition("/")[2].partition(":")
    if not colon or not tag:
        return "has no tag"
    return "has the tag latest" if tag == "latest" else None


def _images(resource: Resource) -> Iterator[tuple[str, object]]:
    for container in containers_of(resource):
        yield f"{container.path}image", container.image
    if resource.type == "docker:index/remoteImage:RemoteImage":
        yield "name", resource.get("name")
    elif resource.type == "docker:index/image:Image":
        yield "imageName", resource.get("imageName")
    elif resource.type == "docker-build:index:Image":
        for number, tag in enumerate(items(resource.get("tags"))):
            yield f"tags[{number}]", tag


def _pinned(resource: Resource, _situation: Situation) -> Iterator[Finding]:
    for field, image in _images(resource):
        wrong = unpinned(image) if isinstance(image, str) else None
        if wrong:
            yield Finding(field, f"is {image}, which {wrong}", _MEND)


RULES = (
    Rule(
        name="image-pinned",
        title="An image is named by a version or a digest, never by the tag latest or by none",
        each=_pinned,
    ),
)
