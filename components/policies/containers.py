"""The containers of a resource: of Docker, of our provider's Docker jobs, and of ECS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from .base import UNKNOWN, Resource, as_document, items

CONTAINER = "docker:index/container:Container"
JOB = "tidemill-native:docker:Job"
TASK = "aws:ecs/taskDefinition:TaskDefinition"


@dataclass(frozen=True)
class Container:
    """One container of a resource.

    Attributes:
        path: prefix of the names of its properties.
        image: its image, or UNKNOWN.
        env: variable -> value, which may be UNKNOWN.
        env_path: the property with the variables.
        given: its own properties.
    """

    path: str
    image: Any
    env: Mapping[str, Any]
    env_path: str
    given: Mapping[str, Any] = field(default_factory=dict[str, Any])


def containers_of(resource: Resource) -> Iterator[Container]:
    """Yield the containers that `resource` declares."""
    if resource.type == CONTAINER:
        yield Container("", resource.get("image"), _pairs(resource.get("envs")), "envs", resource.properties)
    elif resource.type == JOB:
        yield Container("", resource.get("image"), as_mapping(resource.get("env")), "env", resource.properties)
    elif resource.type == "docker:index/service:Service":
        inner = as_mapping(resource.get("taskSpec.containerSpec"))
        path = "taskSpec.containerSpec."
        yield Container(path, inner.get("image"), as_mapping(inner.get("env")), f"{path}env", inner)
    elif resource.type == TASK:
        for number, found in enumerate(items(as_document(resource.get("containerDefinitions")))):
            inner = as_mapping(found)
            path = f"containerDefinitions[{inner.get('name') or number}]."
            env = {
                str(as_mapping(pair).get("name")): as_mapping(pair).get("value")
                for pair in items(inner.get("environment"))
            }
            yield Container(path, inner.get("image"), env, f"{path}environment", inner)


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return `value`, or an empty mapping if it is not a mapping."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _pairs(value: Any) -> dict[str, Any]:
    """Return the variables of a list of NAME=VALUE texts."""
    found: dict[str, Any] = {}
    for pair in cast("list[Any]", value) if isinstance(value, list) else []:
        if pair is UNKNOWN or not isinstance(pair, str):
            continue
        name, _, text = pair.partition("=")
        found[name] = text
    return found
