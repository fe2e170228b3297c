"""The block `aws:` of a stack config."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ....runtime.common.settings import Settings
from ...tools.table import PYTHON_IMAGE
from ..block import BaseImage, BuildArguments, TargetBlock, TrainingExtras, image_problems, service_problems
from ..checks import Problem

# Room for six subnets of 256 addresses each.
_SMALLEST_VPC = 20


class _Choice(Settings):
    """At most one of `existing`, `args`, `skip`; without any, it is created with the defaults of `args`."""

    @model_validator(mode="after")
    def _at_most_one(self) -> _Choice:
        given = [key for key in ("existing", "args", "skip") if getattr(self, key, None)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude one another; keep one of them")
        return self


class ExistingNetwork(Settings):
    """An existing VPC."""

    vpc: str = Field(pattern=r"^vpc-[0-9a-f]+$", description="Id of the VPC.", examples=["vpc-0123456789abcdef0"])
    private_subnets: list[str] = Field(min_length=2, description="Ids of its private subnets, in at least two zones.")
    public_subnets: list[str] = Field(min_length=2, description="Ids of its public subnets, for the load balancer.")


class NetworkArgs(Settings):
    """A VPC that the stack creates."""

    cidr: str = Field(
        default="10.0.0.0/16",
        pattern=r"^\d+\.\d+\.\d+\.\d+/\d+$",
        description="Address range of the VPC.",
        examples=["10.0.0.0/16"],
    )
    zones: int = Field(default=2, ge=2, le=3, description="Number of availability zones.")
    nat: Literal["none", "one", "each"] = Field(
        default="one",
        description="NAT gateways, which seeds and alert receivers need: `none`, `one`, or one in `each` zone. "
        "Services reach AWS through endpoints of the VPC, without a gateway.",
    )

    @field_validator("cidr")
    @classmethod
    def _wide_enough(cls, value: str) -> str:
        """Refuse a text that is not a network, or a network too small for the subnets."""
        network = ip_network(value)
        if network.prefixlen > _SMALLEST_VPC:
            raise ValueError(f"{value} is too small; use /{_SMALLEST_VPC} or wider")
        return value


class NetworkChoice(_Choice):
    """The VPC."""

    existing: ExistingNetwork | None = Field(default=None, description="An existing VPC.")
    args: NetworkArgs | None = Field(default=None, description="How it is created.")


class ClusterChoice(_Choice):
    """The ECS cluster."""

    existing: str | None = Field(
        default=None,
        pattern=r"^arn:aws[a-z-]*:ecs:\S+$",
        description="Its ARN.",
        examples=["arn:aws:ecs:eu-central-1:123456789012:cluster/models"],
    )


class ExistingDatabase(Settings):
    """An existing Postgres server."""

    host: str = Field(min_length=1, description="Host name or address.")
    port: int = Field(default=5432, ge=1, le=65535, description="Port.")
    secret: str = Field(
        pattern=r"^arn:aws[a-z-]*:secretsmanager:\S+$",
        description="ARN of the secret with `username` and `password` of a user that can create databases.",
        examples=["arn:aws:secretsmanager:eu-central-1:123456789012:secret:postgres-0a1b2c"],
    )
    security_group: str = Field(
        pattern=r"^sg-[0-9a-f]+$",
        description="Security group that accepts connections from the services.",
        examples=["sg-0123456789abcdef0"],
    )


class DatabaseChoice(_Choice):
    """The Postgres server."""

    existing: ExistingDatabase | None = Field(default=None, description="An existing Postgres server.")


class BucketChoice(_Choice):
    """The bucket."""

    existing: str | None = Field(
        default=None, min_length=3, description="Name of an existing bucket.", examples=["flights-lake"]
    )


class CertificateChoice(_Choice):
    """The certificate of the load balancer."""

    existing: str | None = Field(
        default=None,
        pattern=r"^arn:aws[a-z-]*:acm:\S+$",
        description="Its ARN.",
        examples=["arn:aws:acm:eu-central-1:123456789012:certificate/0a1b"],
    )


class MetricsChoice(_Choice):
    """The workspace of Amazon Managed Prometheus, which keeps metrics when the Prometheus task ends."""

    existing: str | None = Field(
        default=None,
        pattern=r"^arn:aws[a-z-]*:aps:\S+$",
        description="Its ARN.",
        examples=["arn:aws:aps:eu-central-1:123456789012:workspace/ws-0a1b"],
    )
    skip: bool = Field(
        default=False, description="Keep metrics only in the Prometheus task; they are lost when it ends."
    )


class IngressSettings(Settings):
    """Who can reach the load balancer; it listens only on port 443."""

    public: bool = Field(default=False, description="Give the load balancer public addresses.")
    allow: list[str] = Field(
        default_factory=list[str],
        description="Address ranges that can connect. Default: the VPC's own range, if the stack creates the VPC.",
    )

    @field_validator("allow")
    @classmethod
    def _ranges(cls, value: list[str]) -> list[str]:
        """Refuse a text that is not an address range."""
        for one in value:
            ip_network(one)
        return value


class TaskSize(Settings):
    """Resources of a task's main container; those of its helper are added, and the sum rounded up to a Fargate size."""

    cpu: int = Field(default=512, ge=256, le=16384, description="CPU units; 1024 are one core.")
    memory_mb: int = Field(default=1024, ge=512, le=122880, description="Memory in MiB.")
    disk_gb: int = Field(default=21, ge=21, le=200, description="Temporary disk of the task in GiB.")


class ScalingSettings(Settings):
    """How many tasks serve a model."""

    at_least: int | None = Field(default=None, ge=1, le=8, description="Default: 1, and 2 in production.")
    at_most: int = Field(
        default=4,
        ge=1,
        le=8,
        description="Maximum number of tasks. DNS shows Prometheus at most eight; for more, use larger tasks.",
    )
    requests_per_minute: int = Field(
        default=30_000, ge=1, description="Average number of requests per minute for one task."
    )


class AwsBuildSettings(Settings):
    """How tidemill builds its own images."""

    args: BuildArguments = Field(default_factory=dict[str, str])


class AwsSettings(TargetBlock):
    """How the platform runs on AWS. Only `target: aws` uses it."""

    region: str | None = Field(
        default=None, pattern=r"^[a-z]{2}(-[a-z]+)+-\d$", description="Region.", examples=["eu-central-1"]
    )
    account: str | None = Field(
        default=None,
        pattern=r"^\d{12}$",
        description="The account of this stack; tidemill refuses any other.",
        examples=["123456789012"],
    )
    domain: str | None = Field(
        default=None,
        pattern=r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}$",
        max_length=180,
        description="The stack's own domain; services have the addresses SERVICE.DOMAIN.",
        examples=["flights.ml.example.org"],
    )
    zone: str | None = Field(
        default=None,
        pattern=r"^Z[A-Z0-9]+$",
        description="Id of the Route 53 zone of that domain. Without it, you point `*.DOMAIN` at the load balancer.",
        examples=["Z0123456789ABCDEFGHIJ"],
    )
    production: bool | None = Field(
        default=None,
        description="Two zones for the database, deletion protection, longer backups, two tasks for each model. "
        "Default: true if the environment is called prod or production.",
    )
    size: Literal["small", "medium", "large"] = Field(
        default="small", description="Size of the tasks and of the database."
    )
    architecture: Literal["X86_64", "ARM64"] = Field(default="X86_64", description="CPU architecture of the tasks.")
    network: NetworkChoice = Field(default=NetworkChoice(), description="The VPC: existing or created.")
    ingress: IngressSettings = Field(default=IngressSettings(), description="Who can reach the load balancer.")
    cluster: ClusterChoice = Field(default=ClusterChoice(), description="The ECS cluster: existing or created.")
    database: DatabaseChoice = Field(default=DatabaseChoice(), description="Postgres: existing or created.")
    bucket: BucketChoice = Field(default=BucketChoice(), description="The bucket: existing or created.")
    certificate: CertificateChoice = Field(
        default=CertificateChoice(), description="The certificate of the load balancer: existing or created."
    )
    metrics: MetricsChoice = Field(default=MetricsChoice(), description="Where metrics are kept.")
    lake_metadata: Literal["dynamodb", "postgres"] = Field(
        default="dynamodb", description="Where lakeFS stores its metadata."
    )
    scaling: ScalingSettings = Field(default=ScalingSettings(), description="How many tasks serve a model.")
    services: dict[str, TaskSize] = Field(
        default_factory=dict[str, TaskSize],
        description="Service name, `training` or `jobs` -> size of its tasks, instead of the one that `size` gives.",
    )
    log_days: Literal[1, 3, 5, 7, 14, 30, 60, 90, 120, 180, 365, 400] | None = Field(
        default=None, description="Days for which logs are kept. Default: 14, or 90 in production."
    )
    base_image: BaseImage = PYTHON_IMAGE.reference
    training_extras: TrainingExtras = Field(default_factory=list[str])
    build: AwsBuildSettings = Field(default=AwsBuildSettings(), description="How tidemill builds its own images.")
    images: dict[str, str] = Field(
        default_factory=dict[str, str],
        description="Image name (serving, mlflow, runtime, training, content, lakefs, prometheus, alertmanager, "
        "grafana) -> an existing image to use; it is then neither built nor copied.",
    )
    tags: dict[str, str] = Field(
        default_factory=dict[str, str], description="Extra tags for every resource, such as `cost-center`."
    )

    def is_production(self, environment: str) -> bool:
        """Return whether `environment` is protected as production."""
        return super().is_production(environment) if self.production is None else self.production

    def restricted_names(self) -> dict[str, str]:
        """Return the stack's domain, if the block names one."""
        return {"domain": self.domain} if self.domain else {}

    def namespace(self) -> tuple[str, ...]:
        """Return the region."""
        return (self.region or "",)

    def exclusive(self) -> Iterator[tuple[tuple[str, ...], Problem]]:
        """Yield the domain, and the existing bucket and database."""
        hint = "give each its own"
        if bucket := self.bucket.existing:
            yield ("bucket", bucket), Problem(("aws", "bucket", "existing"), "is also the bucket of", bucket, hint)
        if self.domain:
            yield ("domain", self.domain), Problem(("aws", "domain"), "is also the domain of", self.domain, hint)
        if self.database.existing:
            host, path = self.database.existing.host, ("aws", "database", "existing", "host")
            yield ("database", host), Problem(path, "is also the database of", host, hint)

    def problems(self, services: list[str]) -> Iterator[Problem]:
        """Yield missing and inconsistent settings, unknown services and images that are not pinned."""
        if self.region is None:
            yield Problem(("aws", "region"), "is missing", None, "name the AWS region, such as eu-central-1")
        if self.domain is None:
            yield Problem(
                ("aws", "domain"), "is missing", None, "name the stack's own domain, such as flights.ml.example.org"
            )
        if self.zone is None and self.certificate.existing is None:
            yield Problem(
                ("aws", "certificate"),
                "can only be created if Route 53 proves that the domain is yours",
                None,
                "set aws.zone, or name a certificate as aws.certificate.existing",
            )
        if not self.ingress.allow and (self.ingress.public or self.network.existing):
            yield Problem(
                ("aws", "ingress", "allow"),
                "is missing, so no client could connect",
                None,
                "list the address ranges that can connect",
            )
        at_least = self.scaling.at_least or 1
        if at_least > self.scaling.at_most:
            yield Problem(
                ("aws", "scaling", "at_most"), "is less than at_least", self.scaling.at_most, f"use {at_least} or more"
            )
        yield from service_problems("aws", self.services, [*services, "training", "jobs"])
        yield from image_problems("aws", self.images)
        for key in self.tags:
            if key.startswith(("aws:", "tidemill:")):
                yield Problem(("aws", "tags", key), "is a reserved prefix", key, "choose another name")
