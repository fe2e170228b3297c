"""Image registries: tags are immutable, and images are scanned."""

from __future__ import annotations

from collections.abc import Iterator

from ..aws import is_a
from ..base import UNKNOWN, Finding, Resource, Rule, RuleContext


def _registry(resource: Resource, _context: RuleContext) -> Iterator[Finding]:
    if not is_a(resource, "ecr", "Repository"):
        return
    mutability = resource.get("imageTagMutability")
    if mutability is not UNKNOWN and not str(mutability).startswith("IMMUTABLE"):
        yield Finding("imageTagMutability", f"is {mutability or 'not set'}", "use IMMUTABLE")
    if resource.lacks("imageScanningConfiguration.scanOnPush", True):
        yield Finding("imageScanningConfiguration.scanOnPush", "is not true", "set it to true")


RULES = (
    Rule(
        name="aws-registry",
        title="Tags in an image registry are immutable, and every image is scanned",
        level="advisory",
        check_resource=_registry,
    ),
)
