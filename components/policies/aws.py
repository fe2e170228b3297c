"""Helpers of the rules for AWS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from .base import Resource, as_document, items


def is_a(resource: Resource, service: str, *kinds: str) -> bool:
    """Return whether `resource` is one of `kinds` of the service; some kinds have a second form named `...V2`.

    >>> is_a(Resource(type="aws:s3/bucketV2:BucketV2", name="x"), "s3", "Bucket")
    True
    """
    if not resource.type.startswith(f"aws:{service}/"):
        return False
    return resource.type.rpartition(":")[2].removesuffix("V2") in kinds


def referring(
    resource: Resource, field: str, others: Iterable[Resource], *, keys: Sequence[str] = ("id", "bucket", "arn")
) -> list[Resource]:
    """Return those of `others` whose property `field` refers to `resource`.

    Args:
        resource: the referred resource.
        field: the property that refers to it.
        others: the resources to search.
        keys: properties of `resource` whose value names it.
    """
    names = {name for key in keys if isinstance(name := resource.get(key), str)}
    return [
        other
        for other in others
        if resource.urn in other.refers.get(field, frozenset()) or not names.isdisjoint(_texts(other.get(field)))
    ]


def allows_everybody(statement: Mapping[str, Any]) -> bool:
    """Return whether a statement of an IAM policy allows something to everybody, without a condition."""
    principal = statement.get("Principal")
    named = principal.values() if isinstance(principal, Mapping) else [principal]
    everybody = any(one == "*" for value in named for one in items(value))
    return statement.get("Effect") == "Allow" and everybody and not statement.get("Condition")


def statements(policy: Any) -> list[Mapping[str, Any]]:
    """Return the statements of an IAM policy."""
    document = as_document(policy)
    found = items(document.get("Statement")) if isinstance(document, dict) else []
    return [cast("Mapping[str, Any]", one) for one in found if isinstance(one, Mapping)]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in cast("Mapping[str, Any]", value).values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in cast("Sequence[Any]", value):
            yield from _texts(item)
