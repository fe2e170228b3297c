"""The `aws` target: every service is a task of Fargate in private subnets, what holds data is in S3, RDS and DynamoDB.

What the vendor's provider has not (the values of secrets, tasks which run once, content) is a resource of ours
(`components.provider.aws`); all else is the vendor's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath

import pulumi
import pulumi_aws as aws
from tidemill.runtime.errors import ConfigError

from ...provider import resources as native
from ..base import (
    Content,
    DatabaseRef,
    EndpointArgs,
    EndpointRef,
    JobArgs,
    JobRef,
    Launch,
    ProcessArgs,
    SecretArgs,
    SecretRef,
    ServiceArgs,
    ServiceRef,
    StoreRef,
    TrainerArgs,
    TrainerRef,
)
from ..launches import MLFLOW
from . import permissions
from .content import TaskContent
from .core import Core, after, kept
from .edge import Edge, Entrance
from .images import Images
from .metrics import Metrics, each_task
from .names import CONFIG, PORT, PROJECT, SCRATCH, SECRETS, Names, size_of
from .network import Network
from .permissions import Statement
from .services import Cluster, Running
from .settings import AwsSettings, TaskSize
from .storage import Bucket, Postgres, lake_table
from .stores import use_of
from .tasks import Held, Made, Tasks, Work
from .texts import Texts
from .trainings import Trainings

__all__ = ["AwsTarget"]

# Of these two tasks may answer at once: all that they know is in Postgres, DynamoDB and S3.
_SEVERAL = ("mlflow", "lakefs")
_HELPER = TaskSize(cpu=256, memory_mb=512)
_SERVING = "serving-"
_RECOVERY_DAYS = {False: 0, True: 30}


class AwsTarget:
    """Gives the seven words on AWS.

    Args:
        team, environment: they name the stack.
        root: a folder of this machine for what images are built from.
        project: the folder of Pulumi.yaml.
        settings: the block `aws` of the stack config.
        expiring: store -> days after which what is in it goes.
    """

    name = "aws"
    reaches_out = False
    plain_http = True

    def __init__(
        self,
        team: str,
        environment: str,
        *,
        root: Path,
        project: Path,
        settings: AwsSettings,
        expiring: Mapping[str, int] | None = None,
    ) -> None:
        self._settings = settings
        self._core = Core(Names(team, environment, settings.tags), settings)
        self._stack = self._core.names.stack
        self._images = Images(self._core, project, root / "images")
        self._expiring = expiring or {}
        self._secrets: dict[str, Held] = {}
        self._databases: dict[str, str] = {}
        self._names: dict[str, aws.servicediscovery.Service] = {}
        self._public: set[str] = set()
        self._more: dict[str, pulumi.Output[Sequence[Statement]]] = {}
        self._tasked: dict[str, native.TaskInputs] = {}

    @cached_property
    def _metrics(self) -> Metrics | None:
        return None if self._settings.metrics.skip else Metrics(self._core)

    @cached_property
    def _network(self) -> Network:
        metrics = not self._settings.metrics.skip
        return Network("network", self._core, database=self._settings.database.existing is None, metrics=metrics)

    @cached_property
    def _cluster(self) -> Cluster:
        return Cluster(self._core, self._network)

    @cached_property
    def _edge(self) -> Edge:
        edge = Edge("edge", self._core, self._network)
        pulumi.export("load_balancer", edge.address)
        return edge

    @cached_property
    def _bucket(self) -> Bucket:
        return Bucket(self._core, self._expiring)

    @cached_property
    def _postgres(self) -> Postgres:
        return Postgres(self._core, self._network)

    @cached_property
    def _table(self) -> aws.dynamodb.Table:
        return lake_table(self._core)

    @cached_property
    def _tasks(self) -> Tasks:
        return Tasks(self._core, self._bucket, self._images.get("runtime"))

    @property
    def stack(self) -> str:
        """TEAM-ENVIRONMENT."""
        return self._stack

    def endpoint(self, name: str, args: EndpointArgs, opts: pulumi.ResourceOptions) -> EndpointRef:
        """Name the service in the network, and where clients come, under the stack's domain."""
        made = self._cluster.named(name, opts)
        self._names[name] = made
        address = pulumi.Output.from_input(f"{name}.{self._cluster.zone}:{PORT}")
        url = pulumi.Output.from_input(self._url(name))
        public = url
        if args.public:
            self._public.add(name)
            public = pulumi.Output.from_input(f"https://{name}.{self._core.domain}")
        return EndpointRef(name, url=url, public_url=public, address=address, resource=made)

    def service(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions) -> ServiceRef:
        """Run tasks of Fargate and wait until they are healthy."""
        work, waits = self._work(name, args, opts)
        made = self._tasks.make(name, work, opts)
        main = args.endpoints[0].name
        serves = name.startswith(_SERVING)
        several = serves or name in _SEVERAL
        count = 2 if several and self._core.production else 1
        if serves and self._settings.scaling.at_least:
            count = self._settings.scaling.at_least
        entrance: Entrance | None = None
        if main in self._public:
            entrance = self._edge.entrance(main, args.health, drain=int(args.stop_seconds))
        resource = self._cluster.service(
            name,
            Running(
                made=made,
                names=[self._names[endpoint.name] for endpoint in args.endpoints],
                entrance=entrance,
                count=count,
                several=several,
                scaled=serves,
                groups=self._groups(self._uses_postgres(name, args)),
                grace=args.health.timeout,
            ),
            after(opts, [*waits, *(endpoint.resource for endpoint in args.endpoints)]),
        )
        return ServiceRef(name, resource)

    def job(self, name: str, args: JobArgs, opts: pulumi.ResourceOptions) -> JobRef:
        """Run a task to its end; with the project's code where the command is the project's."""
        work, waits = self._work(name, args, opts)
        made = self._tasks.make(name, work, opts)
        job = native.TaskJob(
            name,
            name=name,
            timeout=args.timeout,
            triggers=dict(args.triggers),
            opts=after(opts, [*waits, *self._network.ready]),
            **self._run(made),
        )
        return JobRef(name, job)

    def object_store(self, name: str, opts: pulumi.ResourceOptions) -> StoreRef:
        """Give a place in the stack's bucket, which is protected as a whole."""
        del opts
        ready = self._bucket.resources
        return StoreRef(name, ready[0] if ready else self._cluster_resource)

    @property
    def _cluster_resource(self) -> pulumi.Resource:
        """What stands for a thing that was brought: anything which is there."""
        return self._network

    def database(self, name: str, opts: pulumi.ResourceOptions) -> DatabaseRef:
        """Make a database, and a role which owns it, in the stack's Postgres; or lakeFS's table."""
        if name == "lakefs" and self._settings.lake_metadata == "dynamodb":
            return DatabaseRef(name, self._table)
        role = name.replace("-", "_")
        secret = self.secret(f"database-{name}", SecretArgs(), opts)
        self._databases[name] = role
        postgres, label = self._postgres, f"databases-{name}"
        made = self._tasks.make(
            label,
            Work(
                image=self._images.get("mlflow"),
                command=["python", "-m", "tidemill.runtime.aws.databases", role, f"{SECRETS}/{secret.name}"],
                env={"PGHOST": postgres.host, "PGPORT": str(postgres.port)},
                secrets={secret.name: self._secrets[secret.name]},
                raw_env={
                    variable: (pulumi.Output.concat(postgres.admin, f":{key}::"), postgres.admin)
                    for variable, key in (("PGUSER", "username"), ("PGPASSWORD", "password"))
                },
                size=_HELPER,
                group="databases",
            ),
            opts,
        )
        job = native.TaskJob(
            f"database-{name}",
            name=f"database-{name}",
            timeout=600.0,
            triggers={"files": made.files},
            opts=after(opts, [*postgres.resources, *self._network.ready]),
            **self._run(made, postgres=True),
        )
        return DatabaseRef(name, job)

    def secret(self, name: str, args: SecretArgs, opts: pulumi.ResourceOptions) -> SecretRef:
        """Make a secret of Secrets Manager; a generated value is nowhere else."""
        core = self._core
        secret = aws.secretsmanager.Secret(
            f"secret-{name}",
            name=core.names.path(name),
            description=f"{name} of the tidemill stack {self._stack}",
            kms_key_id=core.key.arn,
            recovery_window_in_days=_RECOVERY_DAYS[core.production],
            tags=core.tags(name),
            opts=kept(core.of(opts)),
        )
        value = native.SecretValue(
            name,
            name=name,
            stack=self._stack,
            region=core.region,
            secret=secret.arn,
            format=args.format,
            value=args.value,
            opts=kept(opts),
        )
        self._secrets[name] = Held(secret.arn, value.version, value)
        return SecretRef(name, value)

    @property
    def content(self) -> Content:
        """Applied by tasks within the network."""
        return TaskContent(self._stack, self._task_for_content, self._url)

    def _task_for_content(self, label: str, secrets: Sequence[SecretRef]) -> native.TaskInputs:
        name = f"content-{label}"
        if name not in self._tasked:
            made = self._tasks.make(
                name,
                Work(
                    image=self._images.get("content"),
                    command=["python", "-m", "tidemill.components.provider.apply"],
                    secrets={secret.name: self._secrets[secret.name] for secret in secrets},
                    size=_HELPER,
                    group="content",
                ),
                self._core.options,
            )
            self._tasked[name] = self._run(made)
        return self._tasked[name]

    def trainer(self, args: TrainerArgs, opts: pulumi.ResourceOptions) -> TrainerRef:
        """Let the retraining service run tasks of a definition for each model, and no others."""
        trainings = Trainings(self._core, self._tasks, self._bucket, self._cluster)
        made = trainings.make(args, self._images.get("training"), self._secrets, opts)
        self._more["retraining"] = trainings.launching(made)
        launcher = trainings.launcher(made, list(self._network.private), self._groups(False))
        return TrainerRef(launcher=launcher, resources=[one.definition for one in made.values()])

    def mlflow(self) -> Launch:
        """Start it as everywhere, on Postgres and the bucket."""
        more = {
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": self._bucket.uri("mlflow-artifacts"),
            "AWS_DEFAULT_REGION": self._core.region,
        }
        return replace(MLFLOW, env={**MLFLOW.env, **more})

    def lakefs(self) -> Launch:
        """Start lakeFS on the bucket, and on DynamoDB or Postgres."""
        region = self._core.region
        if self._settings.lake_metadata == "dynamodb":
            metadata: dict[str, pulumi.Input[str]] = {
                "LAKEFS_DATABASE_TYPE": "dynamodb",
                "LAKEFS_DATABASE_DYNAMODB_TABLE_NAME": self._table.name,
                "LAKEFS_DATABASE_DYNAMODB_AWS_REGION": region,
            }
        else:
            metadata = {
                "LAKEFS_DATABASE_TYPE": "postgres",
                "LAKEFS_DATABASE_POSTGRES_CONNECTION_STRING": "@{database:lakefs}",
            }
        return Launch(
            argv=["@{tool:lakefs}"],
            env={**metadata, "LAKEFS_BLOCKSTORE_TYPE": "s3", "LAKEFS_BLOCKSTORE_S3_REGION": region},
            namespace=pulumi.Output.concat(self._bucket.uri("lakefs-objects"), "/"),
        )

    def _url(self, service: str) -> str:
        return f"http://{service}.{self._cluster.zone}:{PORT}"

    def _run(self, made: Made, *, postgres: bool = False) -> native.TaskInputs:
        return native.TaskInputs(
            stack=self._stack,
            region=self._core.region,
            cluster=self._cluster.arn,
            definition=made.definition.arn,
            subnets=list(self._network.private),
            security_groups=self._groups(postgres),
            log_group=made.log_group.name,
        )

    def _groups(self, postgres: bool) -> list[pulumi.Input[str]]:
        groups = self._network.groups
        return [groups.services.id, *([groups.clients.id] if postgres else [])]

    def _uses_postgres(self, name: str, args: ProcessArgs) -> bool:
        if name == "grafana":
            return True
        return isinstance(args, ServiceArgs) and any(one.name in self._databases for one in args.databases)

    def _work(self, name: str, args: ProcessArgs, opts: pulumi.ResourceOptions) -> tuple[Work, list[pulumi.Resource]]:
        """Return what the task of a service or job is made of, and what it waits for."""
        service = isinstance(args, ServiceArgs)
        own = not service and args.cwd is not None
        image = self._images.get("training" if own else args.image or "runtime")
        databases = list(args.databases) if isinstance(args, ServiceArgs) else []
        config = dict(args.config_files)
        env = {**(image.upstream.env if image.upstream else {}), **args.env}
        secret_env = {variable: (ref.name, self._secrets[ref.name]) for variable, ref in args.secret_env.items()}
        statements: list[pulumi.Output[Sequence[Statement]]] = []
        if name in self._more:
            statements.append(self._more[name])
        if name == "lakefs" and self._settings.lake_metadata == "dynamodb":
            statements.append(pulumi.Output.all(self._table.arn, self._core.key.arn).apply(_use_table))
        if name == "grafana":
            databases.append(self._grafana(env, secret_env, opts))
        if name == "prometheus":
            config = each_task(config)
        if name == "prometheus" and self._metrics:
            config = self._metrics.writing(config)
            statements.append(self._metrics.arn.apply(permissions.metrics_write))
        if name == "grafana" and self._metrics:
            config = self._metrics.reading(config)
            env |= {"GF_AUTH_SIGV4_AUTH_ENABLED": "true", "AWS_SDK_LOAD_CONFIG": "true"}
            statements.append(self._metrics.arn.apply(permissions.metrics_query))
        roles = [one.name for one in databases if one.name in self._databases]
        texts = Texts(image.upstream, {database: self._database_url(database) for database in roles})
        config |= {_pass_file(database): f"*:*:*:*:@{{secret:database-{database}}}\n" for database in roles}
        secrets = {ref.name: self._secrets[ref.name] for ref in args.secrets}
        return Work(
            image=image,
            command=[texts.later(part) for part in args.argv],
            env={key: texts.later(value) for key, value in env.items()},
            config={file: texts.later(text) for file, text in config.items()},
            secrets=secrets,
            values={f"database-{database}": self._secrets[f"database-{database}"] for database in roles},
            secret_env=secret_env,
            stores={store.name: use_of(store.name, name) for store in args.stores},
            statements=pulumi.Output.all(*statements).apply(lambda found: [one for part in found for one in part]),
            size=self._size(name, args),
            health=args.health if isinstance(args, ServiceArgs) else None,
            stop_seconds=args.stop_seconds if isinstance(args, ServiceArgs) else 30.0,
            open_files=args.limits.open_files if isinstance(args, ServiceArgs) else None,
            folder=SCRATCH if args.cwd is None else str(PurePosixPath(PROJECT) / args.cwd),
            listens=service,
        ), [database.resource for database in databases] + [store.resource for store in args.stores]

    def _grafana(
        self,
        env: dict[str, pulumi.Input[str]],
        secret_env: dict[str, tuple[str, Held]],
        opts: pulumi.ResourceOptions,
    ) -> DatabaseRef:
        """Have Grafana keep what people make in Postgres: the disk of a task ends with it."""
        database = self.database("grafana", opts)
        postgres = self._postgres
        env |= {
            "GF_DATABASE_TYPE": "postgres",
            "GF_DATABASE_HOST": pulumi.Output.concat(postgres.host, f":{postgres.port}"),
            "GF_DATABASE_NAME": "grafana",
            "GF_DATABASE_USER": "grafana",
            "GF_DATABASE_SSL_MODE": "require",
        }
        secret_env["GF_DATABASE_PASSWORD"] = ("database-grafana", self._secrets["database-grafana"])
        return database

    def _database_url(self, database: str) -> pulumi.Output[str]:
        """Return the URL of a database without its password: that is read from a file."""
        role, postgres = self._databases[database], self._postgres
        return pulumi.Output.concat(
            f"postgresql://{role}@",
            postgres.host,
            f":{postgres.port}/{role}?sslmode=require&passfile={CONFIG}/{_pass_file(database)}",
        )

    def _size(self, name: str, args: ProcessArgs) -> TaskSize:
        """Return what the main container gets, and no less than the component asks for."""
        if not isinstance(args, ServiceArgs):
            return size_of(self._settings, "jobs")
        size, limits = size_of(self._settings, name), args.limits
        if name in self._settings.services:
            return size
        cpu = max(size.cpu, int((limits.cpu or 0) * 1024))
        try:
            return TaskSize(cpu=cpu, memory_mb=max(size.memory_mb, limits.memory_mb or 0), disk_gb=size.disk_gb)
        except ValueError:
            raise ConfigError(
                "asks for more than a task of Fargate can have", field=f"aws.services.{name}", value=limits
            ) from None


def _pass_file(database: str) -> str:
    return f"pgpass-{database}"


def _use_table(found: list[str]) -> Sequence[Statement]:
    return permissions.table(*found)
