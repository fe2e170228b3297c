"""All rules."""

from __future__ import annotations

from . import encryption, exposure, images, isolation, permissions, plaintext, production, registries, tagging
from .base import Rule

__all__ = ["RULES", "rule"]

_MODULES = (images, plaintext, isolation, exposure, encryption, permissions, tagging, production, registries)
RULES: tuple[Rule, ...] = tuple(one for module in _MODULES for one in module.RULES)


def rule(name: str) -> Rule:
    """Return the rule `name`."""
    return next(one for one in RULES if one.name == name)
