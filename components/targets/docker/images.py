"""The images of a stack on docker: ours are built on the daemon, the others are pulled."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pulumi
import pulumi_docker as docker
import pulumi_docker_build as build

from ...images import ImageSpec, prepare, python_of
from ...images.catalog import Image, ImageCatalog, image_specs
from ...tools.base import ContainerImage
from .naming import Names
from .settings import DockerSettings


class DockerImages(ImageCatalog):
    """The images of a stack; see `ImageCatalog`.

    Args:
        names: names of the stack in Docker.
        project: the folder of Pulumi.yaml.
        folder: where build contexts are prepared.
        settings: the block `docker` of the stack config.
    """

    def __init__(self, names: Names, project: Path, folder: Path, settings: DockerSettings) -> None:
        specs = image_specs(settings.base_image, settings.training_extras, cloud=False)
        super().__init__(project, folder, specs, settings.images)
        self._names = names
        self._build = settings.build

    def _existing(self, name: str, reference: str, upstream: ContainerImage | None) -> Image:
        pulled = docker.RemoteImage(f"image-{name}", name=reference, keep_locally=True)
        return Image(reference, (pulled,), upstream)

    def _pulled(self, name: str, upstream: ContainerImage) -> Image:
        return self._existing(name, upstream.reference, upstream)

    def _built(self, spec: ImageSpec) -> Image:
        context = prepare(self._folder / spec.name, self._project, spec, python=python_of(spec.base))
        # The digest of the context is in the tag, so containers are replaced exactly when the image changes.
        tag = f"tidemill/{self._names.stack}-{spec.name}:{metadata.version('tidemill')}-{context.digest[:12]}"
        image = build.Image(
            f"image-{spec.name}",
            context=build.BuildContextArgs(location=str(context.folder)),
            dockerfile=build.DockerfileArgs(location=str(context.dockerfile)),
            build_args={"BASE": spec.base, **self._build.args},
            secrets=self._secrets() or None,
            labels=self._names.labels(image=spec.name),
            tags=[tag],
            load=True,
            push=False,
            build_on_preview=False,
        )
        return Image(tag, (image,))

    def _secrets(self) -> dict[str, pulumi.Input[str]]:
        """Return the files that a build can read and that do not stay in the image."""
        wanted = {"pip-conf": self._build.pip_conf, "certificates": self._build.certificates}
        return {
            name: pulumi.Output.secret((self._project / path).read_text(encoding="utf-8"))
            for name, path in wanted.items()
            if path
        }
