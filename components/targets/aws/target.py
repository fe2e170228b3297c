"""The `aws` target: every service is a task of Fargate in private subnets, what holds data is in S3, RDS and DynamoDB.

What the vendor's provider has not (the values of secrets, tasks which run once, content) is a resource of ours
(`components.provider.aws`); all else is the vendor's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pulumi
import pulumi_aws as aws

from ...provider import resources as native
from ..base import (
    Content,
    DatabaseRef,
    EndpointArgs,
    EndpointRef,
    JobArgs,
    JobRef,
    Launch,
    SecretArgs,
    SecretRef,
    ServiceArgs,
    ServiceRef,
    StoreRef,
    TrainerArgs,
    TrainerRef,
)
from ..server_commands import MLFLOW
from .content import TaskContent
from .core import Core, after
from .databases import HELPER, Databases
from .edge import Entrance
from .foundation import Foundation
from .names import PORT, Names
from .secrets import Secrets
from .services import Running
from .settings import AwsSettings
from .task_spec import Works
from .tasks import Work
from .trainings import Trainings

__all__ = ["AwsTarget"]

# Of these two tasks may answer at once: all that they know is in Postgres, DynamoDB and S3.
_SEVERAL = ("mlflow", "lakefs")
_SERVING = "serving-"


class AwsTarget:
    """Gives the primitives on AWS.

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
        self._core = Core(Names(team, environment, settings.tags), settings)
        self._on = Foundation(self._core, root=root, project=project, expiring=expiring or {})
        self._secrets = Secrets(self._core)
        self._databases = Databases(self._on, self._secrets)
        self._works = Works(self._on, self._secrets, self._databases)
        self._content = TaskContent(self._core.names.stack, self._task_for_content, self._on.url)
        self._names: dict[str, aws.servicediscovery.Service] = {}
        self._public: set[str] = set()
        self._tasked: dict[str, native.TaskInputs] = {}

    @property
    def stack(self) -> str:
        """TEAM-ENVIRONMENT."""
        return self._core.names.stack

    def endpoint(self, name: str, args: EndpointArgs, opts: pulumi.ResourceOptions) -> EndpointRef:
        """Name the service in the network, and where clients come, under the stack's domain; `port` does nothing."""
        cluster = self._on.cluster
        made = self._names[name] = cluster.named(name, opts)
        url = public = pulumi.Output.from_input(self._on.url(name))
        if args.public:
            self._public.add(name)
            public = pulumi.Output.from_input(f"https://{name}.{self._core.domain}")
        address = pulumi.Output.from_input(f"{name}.{cluster.zone}:{PORT}")
        return EndpointRef(name, url=url, public_url=public, address=address, resource=made)

    def service(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions) -> ServiceRef:
        """Run tasks of Fargate and wait until they are healthy."""
        on = self._on
        work, waits = self._works.make(name, args, opts)
        made = on.tasks.make(name, work, opts)
        main = args.endpoints[0].name
        serves = name.startswith(_SERVING)
        several = serves or name in _SEVERAL
        count = 2 if several and self._core.production else 1
        if serves and self._core.settings.scaling.at_least:
            count = self._core.settings.scaling.at_least
        entrance: Entrance | None = None
        if main in self._public:
            entrance = on.edge.entrance(main, args.health, drain=int(args.stop_seconds))
        resource = on.cluster.service(
            name,
            Running(
                made=made,
                names=[self._names[endpoint.name] for endpoint in args.endpoints],
                entrance=entrance,
                count=count,
                several=several,
                scaled=serves,
                groups=on.groups(postgres=self._works.uses_postgres(name, args)),
                grace=args.health.timeout,
            ),
            after(opts, [*waits, *(endpoint.resource for endpoint in args.endpoints)]),
        )
        return ServiceRef(name, resource)

    def job(self, name: str, args: JobArgs, opts: pulumi.ResourceOptions) -> JobRef:
        """Run a task to its end; with the project's code where the command is the project's."""
        work, waits = self._works.make(name, args, opts)
        job = native.TaskJob(
            name,
            name=name,
            timeout=args.timeout,
            triggers=dict(args.triggers),
            opts=after(opts, [*waits, *self._on.network.ready]),
            **self._on.run(self._on.tasks.make(name, work, opts)),
        )
        return JobRef(name, job)

    def object_store(self, name: str, opts: pulumi.ResourceOptions) -> StoreRef:
        """Give a place in the stack's bucket, which is protected as a whole."""
        del opts
        # For a bucket which was brought stands what is there in any case.
        return StoreRef(name, next(iter(self._on.bucket.resources), self._on.network))

    def database(self, name: str, opts: pulumi.ResourceOptions) -> DatabaseRef:
        """Make a database, and a role which owns it, in the stack's Postgres; or lakeFS's table."""
        return self._databases.make(name, opts)

    def secret(self, name: str, args: SecretArgs, opts: pulumi.ResourceOptions) -> SecretRef:
        """Make a secret of Secrets Manager; a generated value is nowhere else."""
        return self._secrets.make(name, args, opts)

    @property
    def content(self) -> Content:
        """Applied by tasks within the network."""
        return self._content

    def _task_for_content(self, label: str, secrets: Sequence[SecretRef]) -> native.TaskInputs:
        name = f"content-{label}"
        if name not in self._tasked:
            work = Work(
                image=self._on.images.get("content"),
                command=["python", "-m", "tidemill.components.provider.apply"],
                secrets=self._secrets.all_of(secrets),
                size=HELPER,
                group="content",
            )
            self._tasked[name] = self._on.run(self._on.tasks.make(name, work, self._core.options))
        return self._tasked[name]

    def trainer(self, args: TrainerArgs, opts: pulumi.ResourceOptions) -> TrainerRef:
        """Let the retraining service run tasks of a definition for each model, and no others."""
        on = self._on
        trainings = Trainings(self._core, on.tasks, on.bucket, on.cluster)
        made = trainings.make(args, on.images.get("training"), self._secrets.all_of(args.secrets), opts)
        self._works.more["retraining"] = trainings.launching(made)
        launcher = trainings.launcher(made, list(on.network.private), on.groups(postgres=False))
        return TrainerRef(launcher=launcher, resources=[one.definition for one in made.values()])

    def mlflow(self) -> Launch:
        """Start it as everywhere, on Postgres and the bucket."""
        more = {
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": self._on.bucket.uri("mlflow-artifacts"),
            "AWS_DEFAULT_REGION": self._core.region,
        }
        return replace(MLFLOW, env={**MLFLOW.env, **more})

    def lakefs(self) -> Launch:
        """Start lakeFS on the bucket, and on DynamoDB or Postgres."""
        blocks = {"LAKEFS_BLOCKSTORE_TYPE": "s3", "LAKEFS_BLOCKSTORE_S3_REGION": self._core.region}
        return Launch(
            argv=["@{tool:lakefs}"],
            env={**self._databases.lake_env(), **blocks},
            namespace=pulumi.Output.concat(self._on.bucket.uri("lakefs-objects"), "/"),
        )
