"""The images of a stack: ours are built from the project's lock, the others are pulled at the version of the table."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pulumi
import pulumi_docker as docker
import pulumi_docker_build as build

from ....runtime.common.errors import NotFoundError
from ...images import ImageSpec, prepare, python_of
from ...tools.base import ContainerImage
from ...tools.table import IMAGES
from .naming import Names
from .settings import DockerSettings

__all__ = ["Image", "Images", "specs"]


@dataclass(frozen=True)
class Image:
    """An image which containers can be made of.

    Attributes:
        reference: its name with tag or digest.
        resources: what must be done before it is there.
        upstream: what is known of it where it is none of ours.
    """

    reference: str
    resources: tuple[pulumi.Resource, ...] = ()
    upstream: ContainerImage | None = None

    @property
    def ours(self) -> bool:
        """Whether there is a Python in it."""
        return self.upstream is None


def specs(settings: DockerSettings) -> dict[str, ImageSpec]:
    """Return the images which are ours, by name."""
    base = settings.base_image
    return {
        "mlflow": ImageSpec("mlflow", ("registry",), base),
        "serving": ImageSpec("serving", ("serve", "compiled"), base),
        "runtime": ImageSpec("runtime", ("serve", "validation", "drift"), base),
        "training": ImageSpec("training", ("serve", "drift"), base, tuple(settings.training_extras)),
    }


class Images:
    """Makes each image once, when it is first asked for.

    Args:
        names: what things are called.
        project: the folder of Pulumi.yaml.
        folder: where the folders which images are built from are prepared.
        settings: which images are other ones, and what ours are built from.
        provider: options for the resources.
    """

    def __init__(
        self, names: Names, project: Path, folder: Path, settings: DockerSettings, provider: pulumi.ResourceOptions
    ) -> None:
        self._names = names
        self._project = project
        self._folder = folder
        self._settings = settings
        self._options = provider
        self._made: dict[str, Image] = {}

    def get(self, name: str) -> Image:
        """Return the image `name`: `serving`, `mlflow`, `lakefs` and so on."""
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> Image:
        upstream = IMAGES.get(name)
        other = self._settings.images.get(name)
        if upstream or other:
            reference = other or (upstream.reference if upstream else "")
            pulled = docker.RemoteImage(f"image-{name}", name=reference, keep_locally=True, opts=self._options)
            return Image(reference, (pulled,), upstream)
        spec = specs(self._settings).get(name)
        if spec is None:
            raise NotFoundError("no such image", field="image", value=name, hint=f"use one of {', '.join(IMAGES)}")
        return self._build(spec)

    def _build(self, spec: ImageSpec) -> Image:
        context = prepare(self._folder / spec.name, self._project, spec, python=python_of(spec.base))
        # The contents name the image, so that containers are made anew exactly when it is another one.
        tag = f"tidemill/{self._names.stack}-{spec.name}:{metadata.version('tidemill')}-{context.digest[:12]}"
        made = build.Image(
            f"image-{spec.name}",
            context=build.BuildContextArgs(location=str(context.folder)),
            dockerfile=build.DockerfileArgs(location=str(context.dockerfile)),
            build_args={"BASE": spec.base, **self._settings.build.args},
            secrets=self._secrets() or None,
            labels=self._names.labels(image=spec.name),
            tags=[tag],
            load=True,
            push=False,
            build_on_preview=False,
            opts=self._options,
        )
        return Image(tag, (made,))

    def _secrets(self) -> dict[str, pulumi.Input[str]]:
        """Return the files which a build may read and which do not stay in the image."""
        wanted = {"pip-conf": self._settings.build.pip_conf, "certificates": self._settings.build.certificates}
        return {
            name: pulumi.Output.secret((self._project / path).read_text(encoding="utf-8"))
            for name, path in wanted.items()
            if path
        }
