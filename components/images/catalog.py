"""The images of a stack: tidemill's own, built from specs, and upstream ones at the versions in the tools table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pulumi

from ...runtime.common.errors import NotFoundError
from ..tools.base import ContainerImage
from ..tools.table import IMAGES
from .context import ImageSpec


def image_specs(base: str, training_extras: Sequence[str], *, cloud: bool) -> dict[str, ImageSpec]:
    """Return our images, by name.

    Args:
        base: the base image.
        training_extras: extras of the project for trainings and seeds.
        cloud: whether containers run in a cloud: then tasks fetch their files, and one image creates content.
    """
    more = ("cloud",) if cloud else ()
    specs = [
        ImageSpec("mlflow", ("registry", *more), base),
        ImageSpec("serving", ("serve", "compiled"), base),
        ImageSpec("runtime", ("serve", "validation", "drift", *more), base),
        ImageSpec("training", ("serve", "drift", *more), base, tuple(training_extras)),
        *([ImageSpec("content", ("serve",), base, content=True)] if cloud else []),
    ]
    return {spec.name: spec for spec in specs}


@dataclass(frozen=True)
class Image:
    """An image for containers.

    Attributes:
        reference: its name with tag or digest.
        resources: resources on which its containers depend.
        upstream: its entry in the tools table, if it is not one of ours.
        repositories: ARNs of its repositories in ECR, on aws.
    """

    reference: pulumi.Input[str]
    resources: tuple[pulumi.Resource, ...] = ()
    upstream: ContainerImage | None = None
    repositories: tuple[pulumi.Input[str], ...] = ()

    @property
    def ours(self) -> bool:
        """Whether it is one of our images, which contain Python."""
        return self.upstream is None


class ImageCatalog(ABC):
    """Creates each image when it is first used.

    Args:
        project: the folder of Pulumi.yaml.
        folder: where build contexts are prepared.
        specs: our images, by name.
        replacements: name -> image to use instead.
    """

    def __init__(
        self, project: Path, folder: Path, specs: Mapping[str, ImageSpec], replacements: Mapping[str, str]
    ) -> None:
        self._project = project
        self._folder = folder
        self._specs = specs
        self._replacements = replacements
        self._made: dict[str, Image] = {}

    def get(self, name: str) -> Image:
        """Return the image `name`: `serving`, `mlflow`, `lakefs` and so on.

        Raises:
            NotFoundError: there is no such image.
        """
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> Image:
        upstream, replacement = IMAGES.get(name), self._replacements.get(name)
        if replacement:
            return self._existing(name, replacement, upstream)
        if upstream:
            return self._pulled(name, upstream)
        if name not in self._specs:
            raise NotFoundError("no such image", field="image", value=name, hint=f"use one of {', '.join(IMAGES)}")
        return self._built(self._specs[name])

    @abstractmethod
    def _existing(self, name: str, reference: str, upstream: ContainerImage | None) -> Image:
        """Use the image that the config names."""

    @abstractmethod
    def _pulled(self, name: str, upstream: ContainerImage) -> Image:
        """Pull an image of the tools table."""

    @abstractmethod
    def _built(self, spec: ImageSpec) -> Image:
        """Build one of our images."""
