"""The target `aws`: services are Fargate tasks in private subnets; data is in S3, RDS and DynamoDB.

Values of secrets, jobs and content are resources of our provider (`components.provider.aws`). Everything else is a
resource of the AWS provider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pulumi
import pulumi_aws as aws

from ...images.container_layout import PORT
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
from ..options import after
from ..server_commands import MLFLOW
from .content import TaskContent
from .core import Core
from .databases import CLIENT_SIZE, Databases
from .edge import Entrance
from .foundation import Foundation
from .names import Names
from .secrets import Secrets
from .services import ServiceSpec
from .settings import AwsSettings
from .task_spec import TaskSpecs
from .tasks import TaskSpec
from .trainings import Trainings

# They can run as two tasks: all their state is in Postgres, DynamoDB and S3.
_SEVERAL = ("mlflow", "lakefs")
_SERVING = "serving-"


class AwsTarget:
    """Creates the primitives on AWS.

    Args:
        team, environment: together the stack's name.
        root: a folder on this machine for build contexts.
        project: the folder of Pulumi.yaml.
        settings: the block `aws` of the stack config.
        expiring: store -> days after which its objects are deleted.
    """

    name = "aws"
    external_access = False
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
        self._base = Foundation(self._core, root=root, project=project, expiring=expiring or {})
        self._secrets = Secrets(self._core)
        self._databases = Databases(self._base, self._secrets)
        self._specs = TaskSpecs(self._base, self._secrets, self._databases)
        self._content = TaskContent(self._core.names.stack, self._task_for_content, self._base.url)
        self._names: dict[str, aws.servicediscovery.Service] = {}
        self._public: set[str] = set()
        self._content_tasks: dict[str, native.TaskInputs] = {}

    @property
    def stack(self) -> str:
        """TEAM-ENVIRONMENT."""
        return self._core.names.stack

    def endpoint(self, name: str, args: EndpointArgs, opts: pulumi.ResourceOptions) -> EndpointRef:
        """Create a DNS name in the network; if it is public, use one below the stack's domain, too. Ignores `port`."""
        cluster = self._base.cluster
        made = self._names[name] = cluster.named(name, opts)
        url = public = pulumi.Output.from_input(self._base.url(name))
        if args.public:
            self._public.add(name)
            public = pulumi.Output.from_input(f"https://{name}.{self._core.domain}")
        address = pulumi.Output.from_input(f"{name}.{cluster.zone}:{PORT}")
        return EndpointRef(name, url=url, public_url=public, address=address, resource=made)

    def service(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions) -> ServiceRef:
        """Run Fargate tasks and wait until they are healthy."""
        base = self._base
        spec, waits = self._specs.make(name, args, opts)
        made = base.tasks.make(name, spec, opts)
        main = args.endpoints[0].name
        serves = name.startswith(_SERVING)
        several = serves or name in _SEVERAL
        count = 2 if several and self._core.production else 1
        if serves and self._core.settings.scaling.at_least:
            count = self._core.settings.scaling.at_least
        entrance: Entrance | None = None
        if main in self._public:
            entrance = base.edge.entrance(main, args.health, drain=int(args.stop_seconds))
        resource = base.cluster.service(
            name,
            ServiceSpec(
                task=made,
                names=[self._names[endpoint.name] for endpoint in args.endpoints],
                entrance=entrance,
                count=count,
                several=several,
                scaled=serves,
                groups=base.groups(postgres=self._specs.uses_postgres(name, args)),
                grace=args.health.timeout,
            ),
            after(opts, [*waits, *(endpoint.resource for endpoint in args.endpoints)]),
        )
        return ServiceRef(name, resource)

    def job(self, name: str, args: JobArgs, opts: pulumi.ResourceOptions) -> JobRef:
        """Run a task to its end, with the project's code if the command is the project's."""
        spec, waits = self._specs.make(name, args, opts)
        job = native.TaskJob(
            name,
            name=name,
            timeout=args.timeout,
            triggers=dict(args.triggers),
            opts=after(opts, [*waits, *self._base.network.ready]),
            **self._base.run(self._base.tasks.make(name, spec, opts)),
        )
        return JobRef(name, job)

    def object_store(self, name: str, opts: pulumi.ResourceOptions) -> StoreRef:
        """Return a folder in the stack's bucket. The bucket is protected."""
        del opts
        # An existing bucket has no resource, so the network takes its place.
        return StoreRef(name, next(iter(self._base.bucket.resources), self._base.network))

    def database(self, name: str, opts: pulumi.ResourceOptions) -> DatabaseRef:
        """Create a database and the role that owns it in Postgres, or the DynamoDB table of lakeFS."""
        return self._databases.make(name, opts)

    def secret(self, name: str, args: SecretArgs, opts: pulumi.ResourceOptions) -> SecretRef:
        """Create a secret in Secrets Manager. A generated value is stored nowhere else."""
        return self._secrets.make(name, args, opts)

    @property
    def content(self) -> Content:
        """Created by tasks inside the network."""
        return self._content

    def _task_for_content(self, label: str, secrets: Sequence[SecretRef]) -> native.TaskInputs:
        name = f"content-{label}"
        if name not in self._content_tasks:
            spec = TaskSpec(
                image=self._base.images.get("content"),
                command=["python", "-m", "tidemill.components.provider.apply"],
                secrets=self._secrets.all_of(secrets),
                size=CLIENT_SIZE,
                group="content",
            )
            self._content_tasks[name] = self._base.run(self._base.tasks.make(name, spec, self._core.options))
        return self._content_tasks[name]

    def trainer(self, args: TrainerArgs, opts: pulumi.ResourceOptions) -> TrainerRef:
        """Let the retraining service run one task definition per model, and no others."""
        base = self._base
        trainings = Trainings(self._core, base.tasks, base.bucket, base.cluster)
        made = trainings.make(args, base.images.get("training"), self._secrets.all_of(args.secrets), opts)
        self._specs.more["retraining"] = trainings.launching(made)
        launcher = trainings.launcher(made, list(base.network.private), base.groups(postgres=False))
        return TrainerRef(launcher=launcher, resources=[one.definition for one in made.values()])

    def mlflow(self) -> Launch:
        """Start MLflow on Postgres and the bucket."""
        more = {
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": self._base.bucket.uri("mlflow-artifacts"),
            "AWS_DEFAULT_REGION": self._core.region,
        }
        return replace(MLFLOW, env={**MLFLOW.env, **more})

    def lakefs(self) -> Launch:
        """Start lakeFS on the bucket, and on DynamoDB or Postgres."""
        blocks = {"LAKEFS_BLOCKSTORE_TYPE": "s3", "LAKEFS_BLOCKSTORE_S3_REGION": self._core.region}
        return Launch(
            argv=["@{tool:lakefs}"],
            env={**self._databases.lake_env(), **blocks},
            namespace=pulumi.Output.concat(self._base.bucket.uri("lakefs-objects"), "/"),
        )
