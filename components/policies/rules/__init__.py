"""All rules of the policy pack, one module per subject.

To add a rule: write a function that yields a `Finding` for each fault, and add a `Rule` to `RULES` of the module of its
subject, or of a new module that you list below. Then add samples to `tests/support/policy_samples.py`, and a row to
`docs/policies.md`.
"""

from __future__ import annotations

from ..base import Rule
from . import encryption, exposure, images, isolation, permissions, plaintext, production, registries, tagging

__all__ = ["RULES", "rule"]

_MODULES = (images, plaintext, isolation, exposure, encryption, permissions, tagging, production, registries)
RULES: tuple[Rule, ...] = tuple(one for module in _MODULES for one in module.RULES)


def rule(name: str) -> Rule:
    """Return the rule `name`."""
    return next(one for one in RULES if one.name == name)
