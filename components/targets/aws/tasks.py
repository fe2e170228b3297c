"""Task definitions with the roles of their own, and the files which their containers find."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_aws as aws

from ..base import HealthCheck
from . import permissions
from .core import Core, after
from .definitions import TaskSpec, containers, volumes
from .images import Image
from .names import SCRATCH, whole
from .permissions import Statement
from .settings import TaskSize
from .storage import Bucket
from .stores import Use

__all__ = ["Held", "Made", "Tasks", "Work"]

_LOG_DAYS = {False: 14, True: 90}
_PARAMETERS = frozenset({"keep", "send", "fetch"})


@dataclass(frozen=True)
class Held:
    """A secret of the stack.

    Attributes:
        arn: of the secret.
        version: of its value.
        resource: what must be done before it is read.
    """

    arn: pulumi.Output[str]
    version: pulumi.Output[str]
    resource: pulumi.Resource


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a task definition is for.

    Attributes:
        image: of the main container.
        command, env, folder, open_files, stop_seconds, health: as in `TaskSpec`.
        config: config files, in which secrets may stand.
        secrets: name -> those which become files.
        values: name -> those which stand in config files only.
        secret_env: variable -> secret.
        raw_env: variable -> (reference of ECS to a part of a foreign secret, its ARN).
        stores: name -> what is done with it.
        statements: further permissions of what runs in it.
        writes: whether those write what is encrypted with the stack's key.
        size: of the main container.
        group: the name of its log group, where it is not its own.
    """

    image: Image
    command: Sequence[pulumi.Input[str]]
    env: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])
    config: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])
    secrets: Mapping[str, Held] = field(default_factory=dict[str, Held])
    values: Mapping[str, Held] = field(default_factory=dict[str, Held])
    secret_env: Mapping[str, tuple[str, Held]] = field(default_factory=dict[str, tuple[str, Held]])
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
class Made:
    """A task definition, and what it rests on.

    Attributes:
        definition: the task definition.
        files: digest of the files it finds.
        log_group: where it logs.
        roles: ARNs of its two roles.
    """

    definition: aws.ecs.TaskDefinition
    files: pulumi.Output[str]
    log_group: aws.cloudwatch.LogGroup
    roles: tuple[pulumi.Output[str], pulumi.Output[str]]


class Tasks:
    """Makes task definitions.

    Args:
        core: what all parts share.
        bucket: where their files are.
        helper: the image of the containers beside the main ones.
    """

    def __init__(self, core: Core, bucket: Bucket, helper: Image) -> None:
        self._core = core
        self._bucket = bucket
        self._helper = helper
        self._groups: dict[str, aws.cloudwatch.LogGroup] = {}

    def log_group(self, name: str) -> aws.cloudwatch.LogGroup:
        """Return the log group `name`, made once; logs are kept for a while and are no data."""
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

    def make(self, name: str, work: Work, opts: pulumi.ResourceOptions) -> Made:
        """Declare the task definition `name`.

        Raises:
            ConfigError: it would read a secret which the rules keep from it.
        """
        core = self._core
        named = {**work.secrets, **work.values}
        worn = dict(work.secret_env.values())
        permissions.check_readers(name, {**named, **worn})
        group = self.log_group(work.group or name)
        files, digest, written = self._files(name, work, opts)
        execution = self._execution_role(name, work, {**named, **worn}, group, opts)
        task, granted = self._task_role(name, work, opts)
        spec = TaskSpec(
            image=work.image.reference,
            helper=self._helper.reference,
            ours=work.image.ours,
            command=work.command,
            env=work.env,
            secret_env={
                **{variable: held.arn for variable, (_, held) in work.secret_env.items()},
                **{variable: reference for variable, (reference, _) in work.raw_env.items()},
            },
            files=files,
            secrets={secret: held.arn for secret, held in named.items()},
            keeps=any(use in _PARAMETERS for use in work.stores.values()),
            log_group=group.name,
            region=core.region,
            health=work.health,
            stop_seconds=work.stop_seconds,
            open_files=work.open_files,
            folder=work.folder,
            listens=work.listens,
        )
        cpu, memory = whole(work.size, helped=spec.keeps)
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
            ephemeral_storage=aws.ecs.TaskDefinitionEphemeralStorageArgs(size_in_gib=work.size.disk_gb),
            execution_role_arn=execution.arn,
            task_role_arn=task.arn,
            volumes=[aws.ecs.TaskDefinitionVolumeArgs(name=volume) for volume in volumes()],
            container_definitions=pulumi.Output.json_dumps(containers(spec), sort_keys=True),
            tags=core.tags(name),
            opts=after(
                core.of(opts),
                [
                    written,
                    *granted,
                    *work.image.resources,
                    *self._helper.resources,
                    *(held.resource for held in (*named.values(), *worn.values())),
                ],
            ),
        )
        return Made(definition, digest, group, (task.arn, execution.arn))

    def _files(
        self, name: str, work: Work, opts: pulumi.ResourceOptions
    ) -> tuple[pulumi.Output[str], pulumi.Output[str], pulumi.Resource]:
        """Write down what the containers find, under a name which its contents give it."""
        stores = {
            store: {"uri": self._bucket.uri(store), "use": use}
            for store, use in work.stores.items()
            if use in _PARAMETERS
        }
        known: pulumi.Output[Any] = pulumi.Output.from_input(
            {
                "config": dict(work.config),
                "secrets": sorted(work.secrets),
                "values": sorted(work.values),
                "stores": stores,
                # Other values are other files, so that the tasks which read them are started anew.
                "versions": {
                    secret: held.version
                    for secret, held in (
                        *work.secrets.items(),
                        *work.values.items(),
                        *work.secret_env.values(),
                    )
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
            opts=after(self._core.of(opts), self._bucket.resources),
        )
        return pulumi.Output.concat("s3://", self._bucket.name, "/", written.key), digest, written

    def _execution_role(
        self,
        name: str,
        work: Work,
        secrets: Mapping[str, Held],
        group: aws.cloudwatch.LogGroup,
        opts: pulumi.ResourceOptions,
    ) -> aws.iam.Role:
        """Make the role with which ECS starts the task: it alone reads secrets, and those of this task alone."""
        arns = [held.arn for held in secrets.values()] + [arn for _, arn in work.raw_env.values()]
        repositories = [*work.image.repositories, *self._helper.repositories]
        known = pulumi.Output.all(repositories=repositories, group=group.arn, secrets=arns, key=self._core.key.arn)

        def statements(found: Mapping[str, Any]) -> Sequence[Statement]:
            return permissions.execution(
                sorted(set(found["repositories"])), found["group"], sorted(set(found["secrets"])), found["key"]
            )

        role = self._role(f"{name}-start", f"Starts {name}", opts)
        self._grant(f"{name}-start", role, known.apply(statements), opts)
        return role

    def _task_role(
        self, name: str, work: Work, opts: pulumi.ResourceOptions
    ) -> tuple[aws.iam.Role, list[pulumi.Resource]]:
        """Make the role of what runs in the task: its files, its stores, and what else it is for."""
        role = self._role(name, f"Runs {name}", opts)
        known: pulumi.Output[Any] = pulumi.Output.all(
            bucket=self._bucket.arn, key=self._core.key.arn, more=work.statements
        )

        def statements(found: Mapping[str, Any]) -> Sequence[Statement]:
            writes = work.writes or any(use in {"direct", "keep", "send"} for use in work.stores.values())
            return [
                *permissions.task_files(found["bucket"], name),
                *permissions.use_key(found["key"], write=writes),
                *(
                    one
                    for store, use in sorted(work.stores.items())
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
            opts=core.of(opts),
        )

    def _grant(
        self, name: str, role: aws.iam.Role, statements: pulumi.Output[Any], opts: pulumi.ResourceOptions
    ) -> list[pulumi.Resource]:
        """Give `role` what `statements` say; the description says why there is a star in one."""
        core = self._core
        policy = aws.iam.Policy(
            # Named by Pulumi: another description is another policy, which is made before the old one goes.
            f"role-{name}",
            description=statements.apply(permissions.reasons),
            policy=statements.apply(permissions.document),
            tags=core.tags(name),
            opts=core.of(opts),
        )
        attached = aws.iam.RolePolicyAttachment(
            f"role-{name}", role=role.name, policy_arn=policy.arn, opts=core.of(opts)
        )
        return [attached]
