"""Registries of images: what was pushed under a tag stays that, and is looked at."""

from __future__ import annotations

from collections.abc import Iterator

from .aws import is_a
from .base import UNKNOWN, Finding, Resource, Rule, Situation

__all__ = ["RULES"]


def _registry(resource: Resource, _situation: Situation) -> Iterator[Finding]:
    if not is_a(resource, "ecr", "Repository"):
        return
    mutability = resource.get("imageTagMutability")
    if mutability is not UNKNOWN and not str(mutability).startswith("IMMUTABLE"):
        yield Finding("imageTagMutability", f"is {mutability or 'not given'}", "use IMMUTABLE")
    if resource.lacks("imageScanningConfiguration.scanOnPush", True):
        yield Finding("imageScanningConfiguration.scanOnPush", "is not true", "set it")


RULES = (
    Rule(
        name="aws-registry",
        title="A tag in a registry always means the same image, and every image is scanned",
        level="advisory",
        each=_registry,
    ),
)
