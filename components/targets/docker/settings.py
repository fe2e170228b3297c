"""The block `docker:` of a stack config."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from ....runtime.common.settings import Settings
from ...tools.table import PYTHON_IMAGE
from ..checks import Problem

__all__ = ["BuildSettings", "ContainerLimits", "DockerSettings", "LogRotation"]

_IMAGE = r"^[a-z0-9][a-z0-9._/:-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?(@sha256:[0-9a-f]{64})?$"


class ContainerLimits(Settings):
    """What one container may use."""

    memory_mb: int = Field(default=2048, ge=64, description="Memory in MB; a container which wants more is ended.")
    cpus: float = Field(default=2.0, gt=0, le=256, description="Cores.")
    processes: int = Field(default=1024, ge=32, description="Processes and threads.")


class LogRotation(Settings):
    """How much of each container's output Docker keeps."""

    max_size_mb: int = Field(default=10, ge=1, description="Size at which a log file is closed.")
    max_files: int = Field(default=3, ge=1, le=100, description="Log files which are kept.")


class BuildSettings(Settings):
    """How our own images are built."""

    args: dict[str, str] = Field(
        default_factory=dict[str, str], description="Build argument -> value; they can be read in the image."
    )
    pip_conf: str | None = Field(
        default=None,
        description="Configuration of pip for the build alone, relative to Pulumi.yaml; no image keeps it.",
    )
    certificates: str | None = Field(
        default=None,
        description="Certificates to trust during the build, relative to Pulumi.yaml; no image keeps them.",
    )


class DockerSettings(Settings):
    """How the platform runs in containers; used by `target: docker` alone."""

    host: str | None = Field(
        default=None,
        pattern=r"^unix:///\S+$",
        description="The daemon's socket, such as unix:///run/user/1000/docker.sock for a rootless one. Default: the "
        "one of DOCKER_HOST, or /var/run/docker.sock. It is a daemon of this machine, whose loopback ports are used.",
        examples=["unix:///run/user/1000/docker.sock"],
    )
    base_image: str = Field(
        default=PYTHON_IMAGE.reference,
        pattern=_IMAGE,
        description="Image with Python which our own images are built from, with its tag and, where known, its digest.",
        examples=[PYTHON_IMAGE.reference],
    )
    training_extras: list[str] = Field(
        default_factory=list[str],
        description="Extras of the project's own package which its training and seeds need, besides its dependencies.",
    )
    build: BuildSettings = Field(default=BuildSettings(), description="How our own images are built.")
    images: dict[str, str] = Field(
        default_factory=dict[str, str],
        description="Image name (lakefs, postgres, prometheus, alertmanager, grafana, or one of ours) -> the image "
        "to run instead, such as one of a mirror.",
    )
    limits: ContainerLimits = Field(default=ContainerLimits(), description="What each container may use.")
    services: dict[str, ContainerLimits] = Field(
        default_factory=dict[str, ContainerLimits], description="Service name -> what its container may use instead."
    )
    logs: LogRotation = Field(default=LogRotation(), description="How much of the output is kept.")

    def problems(self, services: list[str]) -> Iterator[Problem]:
        """Yield what does not hold on this target; `services` are the names of the stack's services."""
        known = [*services, "postgres", "runner"]
        for name in self.services:
            if name not in known:
                yield Problem(("docker", "services", name), "no such service", name, f"use one of {', '.join(known)}")
        for name, image in self.images.items():
            if ":" not in image.rpartition("/")[2] or image.rpartition(":")[2] == "latest":
                yield Problem(
                    ("docker", "images", name), "is not pinned", image, "name its version, or its digest as @sha256:..."
                )
