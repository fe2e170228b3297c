"""The resources of `tidemill-native` as the program sees them.

Properties are camelCase towards the engine, as everywhere in its world, and snake_case in Python.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict, Unpack

import pulumi

__all__ = [
    "Action",
    "Awake",
    "AwsContent",
    "Bounds",
    "Branch",
    "BranchProtection",
    "ContainerJob",
    "Endpoint",
    "Experiment",
    "Files",
    "Folder",
    "Job",
    "MountInputs",
    "Permission",
    "ProcessInputs",
    "RegisteredModel",
    "Repository",
    "Scratch",
    "Secret",
    "SecretValue",
    "Service",
    "TaskInputs",
    "TaskJob",
    "User",
    "Volume",
]

Text = pulumi.Input[str]
Options = pulumi.ResourceOptions | None


def _camel(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return `inputs` under the engine's names."""
    return {re.sub("_([a-z])", lambda found: found[1].upper(), key): value for key, value in inputs.items()}


class _Native(pulumi.CustomResource):
    """A resource of the package; inputs which are None are left out."""

    def __init__(
        self, token: str, resource_name: str, props: Mapping[str, Any], outputs: Sequence[str], opts: Options
    ) -> None:
        given = {key: value for key, value in props.items() if value is not None}
        # The engine fills in what it is told of: outputs are declared with None.
        super().__init__(f"tidemill-native:{token}", resource_name, given | dict.fromkeys(outputs), opts)


class Endpoint(_Native):
    """A port of the loopback interface, found free and kept."""

    host: pulumi.Output[str]
    port: pulumi.Output[float]

    def __init__(
        self,
        resource_name: str,
        *,
        stack: Text,
        root: Text,
        name: Text | None = None,
        port: pulumi.Input[int] | None = None,
        opts: Options = None,
    ) -> None:
        props = {"stack": stack, "root": root, "name": name or resource_name, "port": port}
        super().__init__(
            "local:Endpoint", resource_name, props, ["host"] if port is not None else ["host", "port"], opts
        )


class Secret(_Native):
    """A secret in a file of mode 0600: the given `value`, or a random one which is then kept."""

    file: pulumi.Output[str]
    value: pulumi.Output[str]

    def __init__(
        self,
        resource_name: str,
        *,
        stack: Text,
        root: Text,
        name: Text | None = None,
        format: str = "token",  # noqa: A002 - the name of the property
        value: Text | None = None,
        opts: Options = None,
    ) -> None:
        given = None if value is None else pulumi.Output.secret(value)
        props = {"stack": stack, "root": root, "name": name or resource_name, "format": format, "value": given}
        hidden = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(additional_secret_outputs=["value"]))
        super().__init__(
            "local:Secret", resource_name, props, ["file"] if value is not None else ["file", "value"], hidden
        )


class Folder(_Native):
    """A private folder which holds data."""

    path: pulumi.Output[str]

    def __init__(
        self, resource_name: str, *, stack: Text, root: Text, name: Text | None = None, opts: Options = None
    ) -> None:
        props = {"stack": stack, "root": root, "name": name or resource_name}
        super().__init__("local:Folder", resource_name, props, ["path"], opts)


class ProcessInputs(TypedDict):
    """What services and jobs have in common; None leaves an input out."""

    stack: Text
    root: Text
    argv: Sequence[Text]
    env: NotRequired[Mapping[str, Text] | None]
    secret_env: NotRequired[Mapping[str, Text] | None]
    secrets: NotRequired[Sequence[Text] | None]
    config_files: NotRequired[Mapping[str, Text] | None]
    cwd: NotRequired[Text | None]


class Service(_Native):
    """A process under the stack's supervisord, alive when it was made."""

    running: pulumi.Output[bool]

    def __init__(
        self,
        resource_name: str,
        *,
        name: Text | None = None,
        endpoints: Sequence[Text] | None = None,
        health: Mapping[str, Any] | None = None,
        open_files: pulumi.Input[int] | None = None,
        stop_seconds: pulumi.Input[float] | None = None,
        opts: Options = None,
        **process: Unpack[ProcessInputs],
    ) -> None:
        props = {
            "name": name or resource_name,
            "endpoints": endpoints,
            "health": health,
            "openFiles": open_files,
            "stopSeconds": stop_seconds,
        } | _camel(process)
        super().__init__("local:Service", resource_name, props, ["running"], opts)


class Job(_Native):
    """A process which ran once, to its end."""

    exit_code: pulumi.Output[float]
    log: pulumi.Output[str]

    def __init__(
        self,
        resource_name: str,
        *,
        name: Text | None = None,
        timeout: pulumi.Input[float] | None = None,
        triggers: Mapping[str, Text] | None = None,
        opts: Options = None,
        **process: Unpack[ProcessInputs],
    ) -> None:
        props = {
            "name": name or resource_name,
            "timeout": timeout,
            "triggers": triggers,
        } | _camel(process)
        super().__init__("local:Job", resource_name, props, ["exitCode", "log"], opts)

    def translate_output_property(self, prop: str) -> str:
        """Name `exitCode` the Python way."""
        return "exit_code" if prop == "exitCode" else prop


class Volume(_Native):
    """A volume of Docker which holds data and belongs to the user `owner`."""

    volume: pulumi.Output[str]

    def __init__(
        self,
        resource_name: str,
        *,
        stack: Text,
        owner: pulumi.Input[int],
        name: Text | None = None,
        host: Text | None = None,
        labels: Mapping[str, Text] | None = None,
        opts: Options = None,
    ) -> None:
        props = {"stack": stack, "name": name or resource_name, "owner": owner, "host": host, "labels": labels}
        super().__init__(f"docker:{type(self).__name__}", resource_name, props, ["volume"], opts)


class Scratch(Volume):
    """A volume whose contents may be lost at any time."""


class Files(_Native):
    """A volume with the config files and secrets of one container; other contents are another volume."""

    volume: pulumi.Output[str]
    digest: pulumi.Output[str]

    def __init__(
        self,
        resource_name: str,
        *,
        stack: Text,
        root: Text,
        owner: pulumi.Input[int],
        name: Text | None = None,
        host: Text | None = None,
        files: Mapping[str, Text] | None = None,
        secrets: Sequence[Text] | None = None,
        labels: Mapping[str, Text] | None = None,
        opts: Options = None,
    ) -> None:
        props = {
            "stack": stack,
            "root": root,
            "name": name or resource_name,
            "owner": owner,
            "host": host,
            "files": files,
            "secrets": secrets,
            "labels": labels,
        }
        super().__init__("docker:Files", resource_name, props, ["volume", "digest"], opts)


class Bounds(_Native):
    """How many processes a container may have."""

    def __init__(
        self,
        resource_name: str,
        *,
        stack: Text,
        container: Text,
        processes: pulumi.Input[int],
        name: Text | None = None,
        host: Text | None = None,
        opts: Options = None,
    ) -> None:
        props = {
            "stack": stack,
            "name": name or resource_name,
            "container": container,
            "processes": processes,
            "host": host,
        }
        super().__init__("docker:Bounds", resource_name, props, [], opts)


class MountInputs(TypedDict):
    """A volume within a container."""

    volume: Text
    target: str
    readOnly: bool


class ContainerJob(_Native):
    """A container which ran once, to its end."""

    exit_code: pulumi.Output[float]
    log: pulumi.Output[str]

    def __init__(
        self,
        resource_name: str,
        *,
        stack: Text,
        root: Text,
        image: Text,
        argv: Sequence[Text],
        name: Text | None = None,
        host: Text | None = None,
        entrypoint: Sequence[Text] | None = None,
        env: Mapping[str, Text] | None = None,
        mounts: Sequence[MountInputs] | None = None,
        networks: Sequence[Text] | None = None,
        user: Text | None = None,
        working_dir: Text | None = None,
        tmpfs: Mapping[str, Text] | None = None,
        memory_mb: pulumi.Input[int] | None = None,
        cpus: pulumi.Input[float] | None = None,
        processes: pulumi.Input[int] | None = None,
        labels: Mapping[str, Text] | None = None,
        timeout: pulumi.Input[float] | None = None,
        triggers: Mapping[str, Text] | None = None,
        opts: Options = None,
    ) -> None:
        props = {
            "stack": stack,
            "root": root,
            "name": name or resource_name,
            "host": host,
            "image": image,
            "argv": argv,
            "entrypoint": entrypoint,
            "env": env,
            "mounts": mounts,
            "networks": networks,
            "user": user,
            "workingDir": working_dir,
            "tmpfs": tmpfs,
            "memoryMb": memory_mb,
            "cpus": cpus,
            "processes": processes,
            "labels": labels,
            "timeout": timeout,
            "triggers": triggers,
        }
        super().__init__("docker:Job", resource_name, props, ["exitCode", "log"], opts)

    def translate_output_property(self, prop: str) -> str:
        """Name `exitCode` the Python way."""
        return "exit_code" if prop == "exitCode" else prop


class SecretValue(_Native):
    """The value of a secret of Secrets Manager: the given one, or a random one which is then kept there alone."""

    version: pulumi.Output[str]

    def __init__(
        self,
        resource_name: str,
        *,
        stack: Text,
        region: Text,
        secret: Text,
        name: Text | None = None,
        format: str = "token",  # noqa: A002 - the name of the property
        value: Text | None = None,
        opts: Options = None,
    ) -> None:
        given = None if value is None else pulumi.Output.secret(value)
        props = {
            "stack": stack,
            "name": name or resource_name,
            "region": region,
            "secret": secret,
            "format": format,
            "value": given,
        }
        super().__init__("aws:SecretValue", resource_name, props, ["version"], opts)


class TaskInputs(TypedDict):
    """How a task of ECS is run."""

    stack: Text
    region: Text
    cluster: Text
    definition: Text
    subnets: pulumi.Input[Sequence[Text]]
    security_groups: pulumi.Input[Sequence[Text]]
    log_group: Text


class TaskJob(_Native):
    """A task of ECS which ran once, to its end."""

    exit_code: pulumi.Output[float]
    task: pulumi.Output[str]
    log: pulumi.Output[str]

    def __init__(
        self,
        resource_name: str,
        *,
        name: Text | None = None,
        timeout: pulumi.Input[float] | None = None,
        triggers: Mapping[str, Text] | None = None,
        opts: Options = None,
        **task: Unpack[TaskInputs],
    ) -> None:
        props = {"name": name or resource_name, "timeout": timeout, "triggers": triggers} | _camel(task)
        super().__init__("aws:Job", resource_name, props, ["exitCode", "task", "log"], opts)

    def translate_output_property(self, prop: str) -> str:
        """Name `exitCode` the Python way."""
        return "exit_code" if prop == "exitCode" else prop


class AwsContent(_Native):
    """What lives inside a server of the stack's network: a resource of `kind`, made by a task."""

    task: pulumi.Output[str]

    def __init__(
        self,
        resource_name: str,
        *,
        kind: str,
        properties: Mapping[str, Any],
        name: Text | None = None,
        opts: Options = None,
        **task: Unpack[TaskInputs],
    ) -> None:
        props = {"name": name or resource_name, "kind": kind, "properties": _camel(properties)} | _camel(task)
        super().__init__("aws:Content", resource_name, props, ["task"], opts)


class Awake(_Native):
    """At least so many tasks of a service whose number is its load's matter."""

    def __init__(
        self,
        resource_name: str,
        *,
        stack: Text,
        region: Text,
        cluster: Text,
        service: Text,
        at_least: pulumi.Input[int],
        name: Text | None = None,
        opts: Options = None,
    ) -> None:
        props = {
            "stack": stack,
            "name": name or resource_name,
            "region": region,
            "cluster": cluster,
            "service": service,
            "atLeast": at_least,
        }
        super().__init__("aws:Awake", resource_name, props, [], opts)


class LakeInputs(TypedDict):
    """How a lakeFS resource reaches its server."""

    stack: Text
    url: Text
    key_id_file: Text
    secret_file: Text


class RegistryInputs(TypedDict):
    """How an MLflow resource reaches its server, as the administrator."""

    stack: Text
    url: Text
    admin: Text
    password_file: Text


class Repository(_Native):
    """A lakeFS repository; holds data."""

    def __init__(
        self,
        resource_name: str,
        *,
        name: Text,
        namespace: Text,
        default_branch: Text = "main",
        opts: Options = None,
        **access: Unpack[LakeInputs],
    ) -> None:
        props = {"name": name, "namespace": namespace, "defaultBranch": default_branch} | _camel(access)
        super().__init__("lakefs:Repository", resource_name, props, [], opts)


class Branch(_Native):
    """A lakeFS branch."""

    def __init__(
        self,
        resource_name: str,
        *,
        repository: Text,
        name: Text,
        source: Text = "main",
        opts: Options = None,
        **access: Unpack[LakeInputs],
    ) -> None:
        props = {"repository": repository, "name": name, "source": source} | _camel(access)
        super().__init__("lakefs:Branch", resource_name, props, [], opts)


class BranchProtection(_Native):
    """The protected branches of a lakeFS repository."""

    def __init__(
        self,
        resource_name: str,
        *,
        repository: Text,
        branches: Sequence[Text],
        opts: Options = None,
        **access: Unpack[LakeInputs],
    ) -> None:
        props = {"repository": repository, "branches": branches} | _camel(access)
        super().__init__("lakefs:BranchProtection", resource_name, props, [], opts)


class Action(_Native):
    """A lakeFS action file, committed on a branch."""

    def __init__(
        self,
        resource_name: str,
        *,
        repository: Text,
        branch: Text,
        path: Text,
        content: Text,
        opts: Options = None,
        **access: Unpack[LakeInputs],
    ) -> None:
        props = {"repository": repository, "branch": branch, "path": path, "content": content} | _camel(access)
        super().__init__("lakefs:Action", resource_name, props, [], opts)


class Experiment(_Native):
    """An MLflow experiment; holds data."""

    def __init__(
        self, resource_name: str, *, name: Text, opts: Options = None, **access: Unpack[RegistryInputs]
    ) -> None:
        super().__init__("mlflow:Experiment", resource_name, {"name": name} | _camel(access), [], opts)


class RegisteredModel(_Native):
    """A registered model of MLflow; holds data."""

    def __init__(
        self, resource_name: str, *, name: Text, opts: Options = None, **access: Unpack[RegistryInputs]
    ) -> None:
        super().__init__("mlflow:RegisteredModel", resource_name, {"name": name} | _camel(access), [], opts)


class User(_Native):
    """An MLflow user."""

    def __init__(
        self,
        resource_name: str,
        *,
        username: Text,
        user_password_file: Text,
        opts: Options = None,
        **access: Unpack[RegistryInputs],
    ) -> None:
        props = {"username": username, "userPasswordFile": user_password_file} | _camel(access)
        super().__init__("mlflow:User", resource_name, props, [], opts)


class Permission(_Native):
    """What an MLflow user may do with an experiment or a registered model."""

    def __init__(
        self,
        resource_name: str,
        *,
        username: Text,
        kind: Text,
        target: Text,
        permission: Text,
        opts: Options = None,
        **access: Unpack[RegistryInputs],
    ) -> None:
        props = {"username": username, "kind": kind, "target": target, "permission": permission} | _camel(access)
        super().__init__("mlflow:Permission", resource_name, props, [], opts)
