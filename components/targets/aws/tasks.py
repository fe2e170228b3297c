"""Declares task definitions with their roles, and the files that their containers read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_aws as aws

from ...images.catalog import Image
from ...images.container_layout import SCRATCH
from ..base import HealthCheck
from ..options import after
from . import permissions
from .core import Core
from .definitions import ContainerSpec, containers, volumes
from .names import task_size
from .permissions import Statement
from .settings import TaskSize
from .storage import Bucket
from .stores import Use

_LOG_DAYS = {False: 14, True: 90}
_MIRRORED = frozenset({"keep", "send", "fetch"})


@dataclass(frozen=True)
class StoredSecret:
    """A secret of the stack in Secrets Manager.

    Attributes:
        arn: ARN of the secret.
        version: version of its value.
        resource: the resource on which its readers depend.
    """

    arn: pulumi.Output[str]
    version: pulumi.Output[str]
    resource: pulumi.Resource


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """The task of a service or job.

    Attributes:
        image: image of the main container.
        command, env, folder, open_files, stop_seconds, health, listens: as in `ContainerSpec`.
        config: config files, which can contain placeholders of secrets.
        secrets: name -> secret that becomes a file.
        values: name -> secret that appears only in config files.
        secret_env: variable -> (name, secret).
        raw_env: variable -> (reference in ECS's syntax to a part of another secret, ARN of that secret).
        stores: name -> how the task uses it.
        statements: additional permissions of the task.
        writes: whether those permissions write data encrypted with the stack's key.
        size: size of the main container.
        group: name of its log group; None for its own.
    """

    image: Image
    command: Sequence[pulumi.Input[str]]
    env: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])
    config: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])
    secrets: Mapping[str, StoredSecret] = field(default_factory=dict[str, StoredSecret])
    values: Mapping[str, StoredSecret] = field(default_factory=dict[str, StoredSecret])
    secret_env: Mapping[str, tuple[str, StoredSecret]] = field(default_factory=dict[str, tuple[str, StoredSecret]])
    raw_env: Mapping[str, tuple[pulumi.Input[str], pulumi.Input[str]]] = field(
        default_factory=dict[str, tuple[pulumi.Input[str], pulumi.Input[str]]]
    )
    stores: Mapping[str, Use] = field(default_factory=dict[str, Use])
    statements: pulumi.Input[Sequence[Statement]] = ()
    writes: bool = False
    size: TaskSize
    health: HealthCheck | None = None
    stop_seconds: float = 30.0
    open_files: int | None = None
    folder: str = SCRATCH
    listens: bool = False
    group: str | None = None


@dataclass(frozen=True)
class DeclaredTask:
    """A declared task definition.

    Attributes:
        definition: the task definition.
        files: digest of its files.
        log_group: its log group.
        roles: ARNs of its two roles.
    """

    definition: aws.ecs.TaskDefinition
    files: pulumi.Output[str]
    log_group: aws.cloudwatch.LogGroup
    roles: tuple[pulumi.Output[str], pulumi.Output[str]]


class Tasks:
    """Declares task definitions.

    Args:
        core: the stack's shared values.
        bucket: the bucket with their files.
        helper: the image of the containers `prepare` and `keep`.
    """

    def __init__(self, core: Core, bucket: Bucket, helper: Image) -> None:
        self._core = core
        self._bucket = bucket
        self._helper = helper
        self._groups: dict[str, aws.cloudwatch.LogGroup] = {}

    def log_group(self, name: str) -> aws.cloudwatch.LogGroup:
        """Return the log group `name`. Logs expire and are not protected."""
        if name not in self._groups:
            core = self._core
            self._groups[name] = aws.cloudwatch.LogGroup(
                f"log-{name}",
                name=f"/{core.names.path(name)}",
                retention_in_days=core.settings.log_days or _LOG_DAYS[core.production],
                kms_key_id=core.key.arn,
                tags=core.tags(f"log-{name}"),
                opts=core.options,
            )
        return self._groups[name]

    def make(self, name: str, spec: TaskSpec, opts: pulumi.ResourceOptions) -> DeclaredTask:
        """Declare the task definition `name`.

        Raises:
            ConfigError: it would read a secret that the rules forbid.
        """
        core = self._core
        read = {**spec.secrets, **spec.values}
        exported = dict(spec.secret_env.values())
        permissions.check_readers(name, {**read, **exported})
        group = self.log_group(spec.group or name)
        files, digest, written = self._files(name, spec, opts)
        execution = self._execution_role(name, spec, {**read, **exported}, group, opts)
        task, granted = self._task_role(name, spec, opts)
        containers_spec = ContainerSpec(
            image=spec.image.reference,
            helper=self._helper.reference,
            ours=spec.image.ours,
            command=spec.command,
            env=spec.env,
            secret_env={
                **{variable: stored.arn for variable, (_, stored) in spec.secret_env.items()},
                **{variable: reference for variable, (reference, _) in spec.raw_env.items()},
            },
            files=files,
            secrets={secret: stored.arn for secret, stored in read.items()},
            keeps=any(use in _MIRRORED for use in spec.stores.values()),
            log_group=group.name,
            region=core.region,
            health=spec.health,
            stop_seconds=spec.stop_seconds,
            open_files=spec.open_files,
            folder=spec.folder,
            listens=spec.listens,
        )
        cpu, memory = task_size(spec.size, helper=containers_spec.keeps)
        definition = aws.ecs.TaskDefinition(
            f"task-{name}",
            family=core.names.of(name, 255),
            requires_compatibilities=["FARGATE"],
            network_mode="awsvpc",
            cpu=str(cpu),
            memory=str(memory),
            runtime_platform=aws.ecs.TaskDefinitionRuntimePlatformArgs(
                operating_system_family="LINUX", cpu_architecture=core.settings.architecture
            ),
            ephemeral_storage=aws.ecs.TaskDefinitionEphemeralStorageArgs(size_in_gib=spec.size.disk_gb),
            execution_role_arn=execution.arn,
            task_role_arn=task.arn,
            volumes=[aws.ecs.TaskDefinitionVolumeArgs(name=volume) for volume in volumes()],
            container_definitions=pulumi.Output.json_dumps(containers(containers_spec), sort_keys=True),
            tags=core.tags(name),
            opts=after(
                core.with_provider(opts),
                [
                    written,
                    *granted,
                    *spec.image.resources,
                    *self._helper.resources,
                    *(stored.resource for stored in (*read.values(), *exported.values())),
                ],
            ),
        )
        return DeclaredTask(definition, digest, group, (task.arn, execution.arn))

    def _files(
        self, name: str, spec: TaskSpec, opts: pulumi.ResourceOptions
    ) -> tuple[pulumi.Output[str], pulumi.Output[str], pulumi.Resource]:
        """Write the task's files to an object whose name is the digest of its contents."""
        stores = {
            store: {"uri": self._bucket.uri(store), "use": use}
            for store, use in spec.stores.items()
            if use in _MIRRORED
        }
        known: pulumi.Output[Any] = pulumi.Output.from_input(
            {
                "config": dict(spec.config),
                "secrets": sorted(spec.secrets),
                "values": sorted(spec.values),
                "stores": stores,
                # A new value changes the digest, so tasks that read the secret restart.
                "versions": {
                    secret: stored.version
                    for secret, stored in (*spec.secrets.items(), *spec.values.items(), *spec.secret_env.values())
                },
            }
        )
        text: pulumi.Output[str] = known.apply(lambda value: json.dumps(value, indent=1, sort_keys=True))
        digest = text.apply(lambda found: hashlib.sha256(found.encode()).hexdigest()[:16])
        written = aws.s3.BucketObjectv2(
            f"files-{name}",
            bucket=self._bucket.name,
            key=pulumi.Output.concat(f"tasks/{name}/", digest, ".json"),
            content=text,
            content_type="application/json",
            tags={key: value for key, value in self._core.tags(f"files-{name}").items() if key != "Name"},
            opts=after(self._core.with_provider(opts), self._bucket.resources),
        )
        return pulumi.Output.concat("s3://", self._bucket.name, "/", written.key), digest, written

    def _execution_role(
        self,
        name: str,
        spec: TaskSpec,
        secrets: Mapping[str, StoredSecret],
        group: aws.cloudwatch.LogGroup,
        opts: pulumi.ResourceOptions,
    ) -> aws.iam.Role:
        """Create the role with which ECS starts the task. Only this role reads secrets, and only those of the task."""
        arns = [stored.arn for stored in secrets.values()] + [arn for _, arn in spec.raw_env.values()]
        repositories = [*spec.image.repositories, *self._helper.repositories]
        known = pulumi.Output.all(repositories=repositories, group=group.arn, secrets=arns, key=self._core.key.arn)

        def statements(found: Mapping[str, Any]) -> Sequence[Statement]:
            return permissions.execution(
                sorted(set(found["repositories"])), found["group"], sorted(set(found["secrets"])), found["key"]
            )

        role = self._role(f"{name}-start", f"Starts {name}", opts)
        self._grant(f"{name}-start", role, known.apply(statements), opts)
        return role

    def _task_role(
        self, name: str, spec: TaskSpec, opts: pulumi.ResourceOptions
    ) -> tuple[aws.iam.Role, list[pulumi.Resource]]:
        """Create the role of the containers: for the task's files, its stores, and its additional permissions."""
        role = self._role(name, f"Runs {name}", opts)
        known: pulumi.Output[Any] = pulumi.Output.all(
            bucket=self._bucket.arn, key=self._core.key.arn, more=spec.statements
        )

        def statements(found: Mapping[str, Any]) -> Sequence[Statement]:
            writes = spec.writes or any(use in {"direct", "keep", "send"} for use in spec.stores.values())
            return [
                *permissions.task_files(found["bucket"], name),
                *permissions.use_key(found["key"], write=writes),
                *(
                    one
                    for store, use in sorted(spec.stores.items())
                    for one in permissions.store(found["bucket"], store, use)
                ),
                *found["more"],
            ]

        return role, self._grant(name, role, known.apply(statements), opts)

    def _role(self, name: str, does: str, opts: pulumi.ResourceOptions) -> aws.iam.Role:
        core = self._core
        return aws.iam.Role(
            f"role-{name}",
            name=core.names.of(name, 64),
            description=f"{does} of the tidemill stack {core.names.stack}",
            assume_role_policy=core.account.apply(permissions.assume_tasks),
            tags=core.tags(name),
            opts=core.with_provider(opts),
        )

    def _grant(
        self, name: str, role: aws.iam.Role, statements: pulumi.Output[Any], opts: pulumi.ResourceOptions
    ) -> list[pulumi.Resource]:
        """Attach a policy with `statements` to `role`. Its description gives the reason for each wildcard."""
        core = self._core
        policy = aws.iam.Policy(
            # Pulumi chooses the physical name: a new description replaces the policy, and the new one comes first.
            f"role-{name}",
            description=statements.apply(permissions.reasons),
            policy=statements.apply(permissions.document),
            tags=core.tags(name),
            opts=core.with_provider(opts),
        )
        attached = aws.iam.RolePolicyAttachment(
            f"role-{name}", role=role.name, policy_arn=policy.arn, opts=core.with_provider(opts)
        )
        return [attached]
