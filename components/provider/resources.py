"""The provider's resources as a program uses them.

Each class names its kind, which declares its type token, inputs and outputs; only what a type checker needs is
repeated here. Properties are snake_case in Python and camelCase for the engine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

import pulumi

from .aws import awake as aws_awake
from .aws import content as aws_content
from .aws import job as aws_job
from .aws import secret as aws_secret
from .aws.task import TaskInputs
from .base import NativeResource, camel_case
from .content import lakefs, mlflow
from .docker import data as docker_data
from .docker import job as docker_job
from .docker.job import MountInputs
from .local import data as local_data
from .local import job as local_job
from .local import service as local_service
from .local.process import ProcessInputs

__all__ = [
    "Action", "Awake", "AwsContent", "Bounds", "Branch", "BranchProtection", "ContainerJob", "Endpoint", "Experiment",
    "Files", "Folder", "Job", "MountInputs", "Permission", "ProcessInputs", "RegisteredModel", "Repository",
    "Scratch", "Secret", "SecretValue", "Service", "TaskInputs", "TaskJob", "User", "Volume",
]  # fmt: skip

Options = pulumi.ResourceOptions | None


def _camel(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {camel_case(key): value for key, value in inputs.items()}


class _Native(pulumi.CustomResource):
    """A resource of the provider; an input that is None is left out."""

    _kind: ClassVar[type[NativeResource]]

    def __init_subclass__(cls, kind: type[NativeResource]) -> None:
        super().__init_subclass__()
        cls._kind = kind

    def __init__(self, label: str, opts: Options, inputs: Mapping[str, Any]) -> None:
        kind = self._kind
        given = {key: value for key, value in _camel(inputs).items() if value is not None}
        if "name" in kind.required:
            given.setdefault("name", label)
        given |= {key: pulumi.Output.secret(given[key]) for key in kind.secret_inputs if key in given}
        if kind.secret_outputs:
            hidden = pulumi.ResourceOptions(additional_secret_outputs=sorted(kind.secret_outputs))
            opts = pulumi.ResourceOptions.merge(opts, hidden)
        # Outputs are declared with None: the engine fills in only the properties that it is given.
        super().__init__(kind.token, label, {**dict.fromkeys(kind.outputs), **kind.defaults, **given}, opts)

    def translate_output_property(self, prop: str) -> str:
        """Return the Python name of an output."""
        return re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", prop) if prop in self._kind.outputs else prop


class Endpoint(_Native, kind=local_data.Endpoint):
    """A port of the loopback interface."""

    host: pulumi.Output[str]
    port: pulumi.Output[float]

    def __init__(self, label: str, *, opts: Options = None, **inputs: Unpack[local_data.EndpointInputs]) -> None:
        super().__init__(label, opts, inputs)


class Secret(_Native, kind=local_data.Secret):
    """A secret in a file of mode 0600: the given `value`, or a random one."""

    file: pulumi.Output[str]
    value: pulumi.Output[str]
    public: pulumi.Output[str]

    def __init__(self, label: str, *, opts: Options = None, **inputs: Unpack[local_data.SecretInputs]) -> None:
        super().__init__(label, opts, inputs)


class Folder(_Native, kind=local_data.Folder):
    """A private folder that holds data."""

    path: pulumi.Output[str]

    def __init__(self, label: str, *, opts: Options = None, **inputs: Unpack[local_data.LocalInputs]) -> None:
        super().__init__(label, opts, inputs)


class Service(_Native, kind=local_service.Service):
    """A process under the stack's supervisord."""

    running: pulumi.Output[bool]

    def __init__(self, label: str, *, opts: Options = None, **inputs: Unpack[local_service.ServiceInputs]) -> None:
        super().__init__(label, opts, inputs)


class Job(_Native, kind=local_job.Job):
    """A process that runs once."""

    exit_code: pulumi.Output[float]
    log: pulumi.Output[str]

    def __init__(self, label: str, *, opts: Options = None, **inputs: Unpack[local_job.JobInputs]) -> None:
        super().__init__(label, opts, inputs)


class Volume(_Native, kind=docker_data.Volume):
    """A Docker volume that holds data and belongs to the user `owner`."""

    volume: pulumi.Output[str]

    def __init__(self, label: str, *, opts: Options = None, **inputs: Unpack[docker_data.VolumeInputs]) -> None:
        super().__init__(label, opts, inputs)


class Scratch(Volume, kind=docker_data.Scratch):
    """A Docker volume whose contents may be lost at any time."""


class Files(_Native, kind=docker_data.Files):
    """A Docker volume with the config files and secrets of one container."""

    volume: pulumi.Output[str]
    digest: pulumi.Output[str]

    def __init__(self, label: str, *, opts: Options = None, **inputs: Unpack[docker_data.FilesInputs]) -> None:
        super().__init__(label, opts, inputs)


class Bounds(_Native, kind=docker_data.Bounds):
    """The maximum number of processes of a container."""

    def __init__(self, label: str, *, opts: Options = None, **inputs: Unpack[docker_data.BoundsInputs]) -> None:
        super().__init__(label, opts, inputs)


class ContainerJob(_Native, kind=docker_job.Job):
    """A container that runs once."""

    exit_code: pulumi.Output[float]
    log: pulumi.Output[str]

    def __init__(self, label: str, *, opts: Options = None, **inputs: Unpack[docker_job.JobInputs]) -> None:
        super().__init__(label, opts, inputs)


class SecretValue(_Native, kind=aws_secret.SecretValue):
    """The value of a secret in Secrets Manager: the given `value`, or a random one that only AWS keeps."""

    version: pulumi.Output[str]
    public: pulumi.Output[str]

    def __init__(self, label: str, *, opts: Options = None, **inputs: Unpack[aws_secret.SecretValueInputs]) -> None:
        super().__init__(label, opts, inputs)


class TaskJob(_Native, kind=aws_job.Job):
    """An ECS task that runs once."""

    exit_code: pulumi.Output[float]
    task: pulumi.Output[str]
    log: pulumi.Output[str]

    def __init__(self, label: str, *, opts: Options = None, **inputs: Unpack[aws_job.JobInputs]) -> None:
        super().__init__(label, opts, inputs)


class AwsContent(_Native, kind=aws_content.Content):
    """An object inside a server of the stack's network, which a task creates; `properties` are its own inputs."""

    task: pulumi.Output[str]

    def __init__(self, label: str, *, opts: Options = None, **inputs: Unpack[aws_content.ContentInputs]) -> None:
        super().__init__(label, opts, {**inputs, "properties": _camel(inputs["properties"])})


class Awake(_Native, kind=aws_awake.Awake):
    """The minimum task count of an autoscaled ECS service."""

    def __init__(self, label: str, *, opts: Options = None, **inputs: Unpack[aws_awake.AwakeInputs]) -> None:
        super().__init__(label, opts, inputs)


class Repository(_Native, kind=lakefs.Repository):
    """A lakeFS repository; holds data."""

    def __init__(self, label: str, *, opts: Options = None, **inputs: Unpack[lakefs.RepositoryInputs]) -> None:
        super().__init__(label, opts, inputs)


class Branch(_Native, kind=lakefs.Branch):
    """A lakeFS branch."""

    def __init__(self, label: str, *, opts: Options = None, **inputs: Unpack[lakefs.BranchInputs]) -> None:
        super().__init__(label, opts, inputs)


class BranchProtection(_Native, kind=lakefs.BranchProtection):
    """The protected branches of a lakeFS repository."""

    def __init__(self, label: str, *, opts: Options = None, **inputs: Unpack[lakefs.BranchProtectionInputs]) -> None:
        super().__init__(label, opts, inputs)


class Action(_Native, kind=lakefs.Action):
    """A lakeFS action file, committed on a branch."""

    def __init__(self, label: str, *, opts: Options = None, **inputs: Unpack[lakefs.ActionInputs]) -> None:
        super().__init__(label, opts, inputs)


class Experiment(_Native, kind=mlflow.Experiment):
    """An MLflow experiment; holds data."""

    def __init__(self, label: str, *, opts: Options = None, **inputs: Unpack[mlflow.NamedInputs]) -> None:
        super().__init__(label, opts, inputs)


class RegisteredModel(_Native, kind=mlflow.RegisteredModel):
    """A registered model of MLflow; holds data."""

    def __init__(self, label: str, *, opts: Options = None, **inputs: Unpack[mlflow.NamedInputs]) -> None:
        super().__init__(label, opts, inputs)


class User(_Native, kind=mlflow.User):
    """An MLflow user."""

    def __init__(self, label: str, *, opts: Options = None, **inputs: Unpack[mlflow.UserInputs]) -> None:
        super().__init__(label, opts, inputs)


class Permission(_Native, kind=mlflow.Permission):
    """The permission of an MLflow user on an experiment or a registered model."""

    def __init__(self, label: str, *, opts: Options = None, **inputs: Unpack[mlflow.PermissionInputs]) -> None:
        super().__init__(label, opts, inputs)
