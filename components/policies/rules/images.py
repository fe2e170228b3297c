"""Images are pinned: a tag such as `latest` can move after the image was reviewed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..base import Finding, Resource, Rule, RuleContext, items
from ..containers import containers_of

_HINT = "use a version tag, or a digest as NAME@sha256:..."


def unpinned(reference: str) -> str | None:
    """Return the problem of an image's reference, or None.

    >>> unpinned("registry.example:5000/serving"), unpinned("lakefs:latest"), unpinned("lakefs:1.86.0")
    ('has no tag', 'has the tag latest', None)
    """
    name, _, digest = reference.partition("@")
    if digest:
        return None if re.fullmatch(r"sha256:[0-9a-f]{64}", digest) else "has an invalid digest"
    # The id of an image is a digest of its content.
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


def _pinned(resource: Resource, _context: RuleContext) -> Iterator[Finding]:
    for field, image in _images(resource):
        wrong = unpinned(image) if isinstance(image, str) else None
        if wrong:
            yield Finding(field, f"is {image}, which {wrong}", _HINT)


RULES = (
    Rule(
        name="image-pinned",
        title="An image has a version tag or a digest, not the tag latest or no tag",
        check_resource=_pinned,
    ),
)
