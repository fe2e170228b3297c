"""The images of a stack in ECR: ours are built from the project's lock, the others are copied there.

So tasks need no way to a registry of the internet, and every image is scanned.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pulumi
import pulumi_aws as aws
import pulumi_docker_build as build

from ....runtime.common.errors import NotFoundError
from ...images import ImageSpec, prepare, python_of
from ...tools.base import ContainerImage
from ...tools.table import IMAGES
from .core import Core, after
from .settings import AwsSettings

__all__ = ["Image", "Images", "specs"]

_KEPT_IMAGES = 20
_ECR = re.compile(r"^(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com/([^:@]+)")
_MACHINES = {"X86_64": ("linux/amd64", "x86_64"), "ARM64": ("linux/arm64", "aarch64")}


@dataclass(frozen=True)
class Image:
    """An image which tasks can be made of.

    Attributes:
        reference: its name, by digest where it is in the stack's own registry.
        repositories: ARNs of the repositories of ECR which it is pulled from.
        resources: what must be done before it is there.
        upstream: what is known of it where it is none of ours.
    """

    reference: pulumi.Input[str]
    repositories: tuple[pulumi.Input[str], ...] = ()
    resources: tuple[pulumi.Resource, ...] = ()
    upstream: ContainerImage | None = None

    @property
    def ours(self) -> bool:
        """Whether there is a Python in it."""
        return self.upstream is None


def specs(settings: AwsSettings) -> dict[str, ImageSpec]:
    """Return the images which are ours, by name."""
    base = settings.base_image
    return {
        "mlflow": ImageSpec("mlflow", ("registry", "cloud"), base),
        "serving": ImageSpec("serving", ("serve", "compiled"), base),
        "runtime": ImageSpec("runtime", ("serve", "validation", "drift", "cloud"), base),
        "training": ImageSpec("training", ("serve", "drift", "cloud"), base, tuple(settings.training_extras)),
        "content": ImageSpec("content", ("serve",), base, content=True),
    }


class Images:
    """Makes each image once, when it is first asked for.

    Args:
        core: what all parts share.
        project: the folder of Pulumi.yaml.
        folder: where the folders which images are built from are prepared.
    """

    def __init__(self, core: Core, project: Path, folder: Path) -> None:
        self._core = core
        self._project = project
        self._folder = folder
        self._made: dict[str, Image] = {}

    def get(self, name: str) -> Image:
        """Return the image `name`: `serving`, `mlflow`, `lakefs` and so on."""
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> Image:
        upstream = IMAGES.get(name)
        other = self._core.settings.images.get(name)
        if other:
            return self._brought(other, upstream)
        if upstream:
            folder = self._folder / "copied"
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            tag = re.sub(r"[^A-Za-z0-9_.-]", "-", upstream.reference.partition(":")[2])
            return self._build(name, tag, folder, inline=f"FROM {upstream.reference}\n", upstream=upstream)
        spec = specs(self._core.settings).get(name)
        if spec is None:
            raise NotFoundError("no such image", field="image", value=name, hint=f"use one of {', '.join(IMAGES)}")
        arch = _MACHINES[self._core.settings.architecture][1]
        context = prepare(self._folder / name, self._project, spec, python=python_of(spec.base), arch=arch)
        tag = f"{metadata.version('tidemill')}-{context.digest[:12]}"
        return self._build(name, tag, context.folder, args={"BASE": spec.base, **self._core.settings.build.args})

    def _brought(self, reference: str, upstream: ContainerImage | None) -> Image:
        """Take an image which is there already; one of ECR needs a permission."""
        found = _ECR.match(reference)
        if found is None:
            return Image(reference, upstream=upstream)
        account, region, repository = found.groups()
        arn = pulumi.Output.concat("arn:", self._core.partition, f":ecr:{region}:{account}:repository/{repository}")
        return Image(reference, (arn,), upstream=upstream)

    def _build(
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
        login = aws.ecr.get_authorization_token_output(opts=core.asking)
        made = build.Image(
            f"image-{name}",
            context=build.BuildContextArgs(location=str(folder)),
            dockerfile=build.DockerfileArgs(inline=inline, location=None if inline else str(folder / "Dockerfile")),
            build_args=args,
            platforms=[build.Platform(_MACHINES[core.settings.architecture][0])],
            # The contents name the image, and a name once given is never another image's.
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
            # The password is another one each time; the vendor's provider does not build again for that.
            opts=pulumi.ResourceOptions(depends_on=[repository]),
        )
        reference = pulumi.Output.concat(repository.repository_url, "@", made.digest)
        return Image(reference, (repository.arn,), (made,), upstream)

    def _repository(self, name: str) -> aws.ecr.Repository:
        core = self._core
        made = aws.ecr.Repository(
            f"image-{name}",
            name=core.names.path(name),
            image_tag_mutability="IMMUTABLE",
            image_scanning_configuration=aws.ecr.RepositoryImageScanningConfigurationArgs(scan_on_push=True),
            encryption_configurations=[
                aws.ecr.RepositoryEncryptionConfigurationArgs(encryption_type="KMS", kms_key=core.key.arn)
            ],
            # Images are built again from the project; nothing is lost with them.
            force_delete=True,
            tags=core.tags(f"image-{name}"),
            opts=core.options,
        )
        rule = (
            '{"rules":[{"rulePriority":1,"description":"the newest","selection":{"tagStatus":"any",'
            f'"countType":"imageCountMoreThan","countNumber":{_KEPT_IMAGES}}},"action":{{"type":"expire"}}}}]}}'
        )
        aws.ecr.LifecyclePolicy(f"image-{name}", repository=made.name, policy=rule, opts=after(core.options, [made]))
        return made
