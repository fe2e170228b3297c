"""The base of the targets' blocks in a stack config, and what they share. Imports no Pulumi."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from pydantic import Field

from ...runtime.common.settings import Settings
from ..tools.table import PYTHON_IMAGE
from .checks import Problem

PRODUCTION = frozenset({"prod", "production"})
"""Names of environments that are production unless the config says otherwise."""

_IMAGE = r"^[a-z0-9][a-z0-9._/:-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?(@sha256:[0-9a-f]{64})?$"

BaseImage = Annotated[
    str,
    Field(
        pattern=_IMAGE,
        description="Image with Python from which our images are built, with its tag and, if known, its digest.",
        examples=[PYTHON_IMAGE.reference],
    ),
]
TrainingExtras = Annotated[
    list[str],
    Field(description="Extras of the project's own package that training and seeds need, beyond its dependencies."),
]
BuildArguments = Annotated[
    dict[str, str], Field(description="Build argument -> value; anyone can read them in the image.")
]


class TargetBlock(Settings):
    """The settings of one target. Each method has a default, for targets to which it does not apply."""

    def problems(self, services: list[str]) -> Iterator[Problem]:
        """Yield what is wrong with the block on its target; `services` are the names of the stack's services."""
        del services
        return iter(())

    def is_production(self, environment: str) -> bool:
        """Return whether `environment` is protected as production."""
        return environment in PRODUCTION

    def restricted_names(self) -> Mapping[str, str]:
        """Return key -> value of the names for which `teams.yaml` can give a pattern, under the same key."""
        return {}

    def namespace(self) -> tuple[str, ...] | None:
        """Return the place, such as a region, in which service names must be unique; None if stacks are separate."""
        return None

    def exclusive(self) -> Iterator[tuple[tuple[str, ...], Problem]]:
        """Yield each resource that only one stack can use, and what to report if a second one names it."""
        return iter(())


def service_problems(target: str, services: Iterable[str], known: list[str]) -> Iterator[Problem]:
    """Yield a problem for each of `services`, keys of the block's `services`, that is not `known`."""
    for name in services:
        if name not in known:
            yield Problem((target, "services", name), "no such service", name, f"use one of {', '.join(known)}")


def image_problems(target: str, images: Mapping[str, str]) -> Iterator[Problem]:
    """Yield a problem for each of the block's `images` that is pinned by neither version nor digest."""
    for name, image in images.items():
        if ":" not in image.rpartition("/")[2] or image.rpartition(":")[2] == "latest":
            yield Problem(
                (target, "images", name), "is not pinned", image, "name its version, or its digest as @sha256:..."
            )
