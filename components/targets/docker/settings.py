"""The block `docker:` of a stack config."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from ....runtime.common.settings import Settings
from ...tools.table import PYTHON_IMAGE
from ..block import BaseImage, BuildArguments, TargetBlock, TrainingExtras, image_problems, service_problems
from ..checks import Problem


class ContainerLimits(Settings):
    """Limits of one container."""

    memory_mb: int = Field(default=2048, ge=64, description="Memory in MB; a container that uses more is killed.")
    cpus: float = Field(default=2.0, gt=0, le=256, description="CPU cores.")
    processes: int = Field(default=1024, ge=32, description="Processes and threads.")


class LogRotation(Settings):
    """How much of each container's output Docker keeps."""

    max_size_mb: int = Field(default=10, ge=1, description="Size at which a log file is rotated.")
    max_files: int = Field(default=3, ge=1, le=100, description="Number of log files kept.")


class BuildSettings(Settings):
    """How tidemill builds its own images."""

    args: BuildArguments = Field(default_factory=dict[str, str])
    pip_conf: str | None = Field(
        default=None,
        description="pip configuration for the build only, relative to Pulumi.yaml; it does not stay in the image.",
    )
    certificates: str | None = Field(
        default=None,
        description="Certificates to trust during the build, relative to Pulumi.yaml; they do not stay in the image.",
    )


class DockerSettings(TargetBlock):
    """How the platform runs in containers. Only `target: docker` uses it."""

    host: str | None = Field(
        default=None,
        pattern=r"^unix:///\S+$",
        description="Socket of the Docker daemon, such as unix:///run/user/1000/docker.sock for a rootless one. "
        "Default: DOCKER_HOST, else /var/run/docker.sock. The daemon must run on this machine: services are published "
        "on its loopback interface.",
        examples=["unix:///run/user/1000/docker.sock"],
    )
    base_image: BaseImage = PYTHON_IMAGE.reference
    training_extras: TrainingExtras = Field(default_factory=list[str])
    build: BuildSettings = Field(default=BuildSettings(), description="How tidemill builds its own images.")
    images: dict[str, str] = Field(
        default_factory=dict[str, str],
        description="Image name (lakefs, postgres, prometheus, alertmanager, grafana, or one of ours) -> the image "
        "to use instead, such as one from a mirror.",
    )
    limits: ContainerLimits = Field(default=ContainerLimits(), description="Limits of each container.")
    services: dict[str, ContainerLimits] = Field(
        default_factory=dict[str, ContainerLimits],
        description="Service name -> limits of its container, instead of `limits`.",
    )
    logs: LogRotation = Field(default=LogRotation(), description="How much log output is kept.")

    def problems(self, services: list[str]) -> Iterator[Problem]:
        """Yield unknown services and images that are not pinned."""
        yield from service_problems("docker", self.services, [*services, "postgres", "runner"])
        yield from image_problems("docker", self.images)

    def namespace(self) -> tuple[str, ...]:
        """Return nothing: the names must be unique on the daemon."""
        return ()
