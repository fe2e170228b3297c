"""The images of a stack in ECR: ours are built, the others are copied there.

So tasks need no access to registries on the internet, and every image is scanned.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pulumi
import pulumi_aws as aws
import pulumi_docker_build as build

from ...images import ImageSpec, prepare, python_of
from ...images.catalog import Image, ImageCatalog, image_specs
from ...tools.base import ContainerImage
from ..options import after
from .core import Core

_KEPT_IMAGES = 20
_ECR = re.compile(r"^(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com/([^:@]+)")
_MACHINES = {"X86_64": ("linux/amd64", "x86_64"), "ARM64": ("linux/arm64", "aarch64")}


class EcrImages(ImageCatalog):
    """The images of a stack; see `ImageCatalog`.

    Args:
        core: the stack's shared values.
        project: the folder of Pulumi.yaml.
        folder: where build contexts are prepared.
    """

    def __init__(self, core: Core, project: Path, folder: Path) -> None:
        settings = core.settings
        specs = image_specs(settings.base_image, settings.training_extras, cloud=True)
        super().__init__(project, folder, specs, settings.images)
        self._core = core
        self._platform, self._machine = _MACHINES[settings.architecture]

    def _existing(self, name: str, reference: str, upstream: ContainerImage | None) -> Image:
        del name
        found = _ECR.match(reference)
        if found is None:
            return Image(reference, upstream=upstream)
        account, region, repository = found.groups()
        arn = pulumi.Output.concat("arn:", self._core.partition, f":ecr:{region}:{account}:repository/{repository}")
        return Image(reference, upstream=upstream, repositories=(arn,))

    def _pulled(self, name: str, upstream: ContainerImage) -> Image:
        folder = self._folder / "copied"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tag = re.sub(r"[^A-Za-z0-9_.-]", "-", upstream.reference.partition(":")[2])
        return self._push(name, tag, folder, inline=f"FROM {upstream.reference}\n", upstream=upstream)

    def _built(self, spec: ImageSpec) -> Image:
        python = python_of(spec.base)
        context = prepare(self._folder / spec.name, self._project, spec, python=python, arch=self._machine)
        tag = f"{metadata.version('tidemill')}-{context.digest[:12]}"
        args = {"BASE": spec.base, **self._core.settings.build.args}
        return self._push(spec.name, tag, context.folder, args=args)

    def _push(
        self,
        name: str,
        tag: str,
        folder: Path,
        *,
        inline: str | None = None,
        args: dict[str, str] | None = None,
        upstream: ContainerImage | None = None,
    ) -> Image:
        core = self._core
        repository = self._repository(name)
        login = aws.ecr.get_authorization_token_output(opts=core.invoke_options)
        image = build.Image(
            f"image-{name}",
            context=build.BuildContextArgs(location=str(folder)),
            dockerfile=build.DockerfileArgs(inline=inline, location=None if inline else str(folder / "Dockerfile")),
            build_args=args,
            platforms=[build.Platform(self._platform)],
            # The tag contains the digest of the context, and ECR never moves a tag.
            tags=[pulumi.Output.concat(repository.repository_url, ":", tag)],
            registries=[
                build.RegistryArgs(
                    address=repository.repository_url.apply(lambda url: url.partition("/")[0]),
                    username=login.user_name,
                    password=pulumi.Output.secret(login.password),
                )
            ],
            labels={key: value for key, value in core.tags(name).items() if key != "Name"},
            push=True,
            load=False,
            build_on_preview=False,
            # The password differs on each run; the provider does not rebuild because of it.
            opts=pulumi.ResourceOptions(depends_on=[repository]),
        )
        reference = pulumi.Output.concat(repository.repository_url, "@", image.digest)
        return Image(reference, (image,), upstream, (repository.arn,))

    def _repository(self, name: str) -> aws.ecr.Repository:
        core = self._core
        repository = aws.ecr.Repository(
            f"image-{name}",
            name=core.names.path(name),
            image_tag_mutability="IMMUTABLE",
            image_scanning_configuration=aws.ecr.RepositoryImageScanningConfigurationArgs(scan_on_push=True),
            encryption_configurations=[
                aws.ecr.RepositoryEncryptionConfigurationArgs(encryption_type="KMS", kms_key=core.key.arn)
            ],
            # Images can be rebuilt from the project, so deleting them loses nothing.
            force_delete=True,
            tags=core.tags(f"image-{name}"),
            opts=core.options,
        )
        rule = (
            '{"rules":[{"rulePriority":1,"description":"the newest","selection":{"tagStatus":"any",'
            f'"countType":"imageCountMoreThan","countNumber":{_KEPT_IMAGES}}},"action":{{"type":"expire"}}}}]}}'
        )
        aws.ecr.LifecyclePolicy(
            f"image-{name}", repository=repository.name, policy=rule, opts=after(core.options, [repository])
        )
        return repository
