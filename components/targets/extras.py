"""Which extra of tidemill brings what a target imports; imports nothing of it."""

from __future__ import annotations

import importlib.util

from ...runtime.common.errors import UserError

__all__ = ["TARGETS", "missing", "missing_error"]

TARGETS: dict[str, tuple[str, ...]] = {
    "local": ("pulumi", "supervisor"),
    "docker": ("pulumi", "pulumi_docker", "pulumi_docker_build", "docker"),
    "aws": ("pulumi", "pulumi_aws", "pulumi_docker_build", "boto3"),
}
"""Target -> the modules which it imports, and which not every install has."""


def missing(target: str) -> str | None:
    """Return how to get what `target` imports, where some of it is not installed, else None."""
    if all(importlib.util.find_spec(module) for module in TARGETS[target]):
        return None
    return f'pip install "tidemill[{"platform" if target == "local" else target}]"'


def missing_error(target: str) -> UserError:
    """Return what is said where a stack names `target` and its modules are not installed."""
    return UserError(
        "needs more than is installed", field="target", value=target, hint=f"run `{missing(target) or 'uv sync'}`"
    )
