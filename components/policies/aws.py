"""What the rules of AWS share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from .base import Resource

__all__ = ["is_a", "referring"]


def is_a(resource: Resource, service: str, *kinds: str) -> bool:
    """Say whether `resource` is one of `kinds` of the service; an older form of the same has a `V2` after its name.

    >>> is_a(Resource(type="aws:s3/bucketV2:BucketV2", name="x"), "s3", "Bucket")
    True
    """
    if not resource.type.startswith(f"aws:{service}/"):
        return False
    return resource.type.rpartition(":")[2].removesuffix("V2") in kinds


def referring(
    resource: Resource, field: str, others: Iterable[Resource], *, told: Sequence[str] = ("id", "bucket", "arn")
) -> list[Resource]:
    """Return those of `others` whose property `field` is computed from `resource`, or names it.

    Args:
        resource: what is looked for.
        field: the property which names it.
        others: where it is looked for.
        told: properties of `resource` whose value names it.
    """
    names = {name for key in told if isinstance(name := resource.get(key), str)}
    return [
        other
        for other in others
        if resource.urn in other.refers.get(field, frozenset()) or not names.isdisjoint(_texts(other.get(field)))
    ]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in cast("Mapping[str, Any]", value).values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in cast("Sequence[Any]", value):
            yield from _texts(item)
