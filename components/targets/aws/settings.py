"""The block `aws:` of a stack config."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ....runtime.common.settings import Settings
from ...tools.table import PYTHON_IMAGE
from ..checks import Problem

__all__ = [
    "AwsBuildSettings",
    "AwsSettings",
    "BucketChoice",
    "CertificateChoice",
    "ClusterChoice",
    "DatabaseChoice",
    "ExistingDatabase",
    "ExistingNetwork",
    "IngressSettings",
    "MetricsChoice",
    "NetworkArgs",
    "NetworkChoice",
    "ScalingSettings",
    "TaskSize",
]

_IMAGE = r"^[a-z0-9][a-z0-9._/:-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?(@sha256:[0-9a-f]{64})?$"
# Room for six subnets of 256 addresses each.
_SMALLEST_VPC = 20


class _Choice(Settings):
    """At most one of `existing`, `args`, `skip`; with none of them it is made with the defaults of `args`."""

    @model_validator(mode="after")
    def _at_most_one(self) -> _Choice:
        given = [key for key in ("existing", "args", "skip") if getattr(self, key, None)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude one another; keep one of them")
        return self


class ExistingNetwork(Settings):
    """A VPC which is there already."""

    vpc: str = Field(pattern=r"^vpc-[0-9a-f]+$", description="Its id.", examples=["vpc-0123456789abcdef0"])
    private_subnets: list[str] = Field(min_length=2, description="Ids of its private subnets, in two zones at least.")
    public_subnets: list[str] = Field(min_length=2, description="Ids of its public subnets, for the load balancer.")


class NetworkArgs(Settings):
    """A VPC which is made."""

    cidr: str = Field(
        default="10.0.0.0/16",
        pattern=r"^\d+\.\d+\.\d+\.\d+/\d+$",
        description="Its addresses.",
        examples=["10.0.0.0/16"],
    )
    zones: int = Field(default=2, ge=2, le=3, description="Availability zones.")
    nat: Literal["none", "one", "each"] = Field(
        default="one",
        description="The way out, for what alerts are sent to and what seeds fetch: `none`, `one` gateway, or `each` "
        "zone its own. AWS itself is reached through endpoints of the VPC, without it.",
    )

    @field_validator("cidr")
    @classmethod
    def _wide_enough(cls, value: str) -> str:
        """Refuse what is no network, or has no room for the subnets."""
        network = ip_network(value)
        if network.prefixlen > _SMALLEST_VPC:
            raise ValueError(f"{value} is too small; use /{_SMALLEST_VPC} or wider")
        return value


class NetworkChoice(_Choice):
    """The VPC."""

    existing: ExistingNetwork | None = Field(default=None, description="One which is there already.")
    args: NetworkArgs | None = Field(default=None, description="How it is made.")


class ClusterChoice(_Choice):
    """The ECS cluster."""

    existing: str | None = Field(
        default=None,
        pattern=r"^arn:aws[a-z-]*:ecs:\S+$",
        description="Its ARN.",
        examples=["arn:aws:ecs:eu-central-1:123456789012:cluster/models"],
    )


class ExistingDatabase(Settings):
    """A Postgres server which is there already."""

    host: str = Field(min_length=1, description="Its address.")
    port: int = Field(default=5432, ge=1, le=65535, description="Its port.")
    secret: str = Field(
        pattern=r"^arn:aws[a-z-]*:secretsmanager:\S+$",
        description="ARN of the secret with `username` and `password` of a user who may create databases.",
        examples=["arn:aws:secretsmanager:eu-central-1:123456789012:secret:postgres-0a1b2c"],
    )
    security_group: str = Field(
        pattern=r"^sg-[0-9a-f]+$",
        description="The security group which lets services in.",
        examples=["sg-0123456789abcdef0"],
    )


class DatabaseChoice(_Choice):
    """The Postgres server."""

    existing: ExistingDatabase | None = Field(default=None, description="One which is there already.")


class BucketChoice(_Choice):
    """The bucket."""

    existing: str | None = Field(
        default=None, min_length=3, description="Name of one which is there already.", examples=["flights-lake"]
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
    """The workspace of Amazon Managed Prometheus, where metrics outlive the task which scraped them."""

    existing: str | None = Field(
        default=None,
        pattern=r"^arn:aws[a-z-]*:aps:\S+$",
        description="Its ARN.",
        examples=["arn:aws:aps:eu-central-1:123456789012:workspace/ws-0a1b"],
    )
    skip: bool = Field(default=False, description="Keep metrics in the Prometheus task alone, as long as it lives.")


class IngressSettings(Settings):
    """Who reaches the load balancer, at port 443 alone."""

    public: bool = Field(default=False, description="Give the load balancer addresses of the internet.")
    allow: list[str] = Field(
        default_factory=list[str],
        description="Address ranges which are let in. Default: the VPC's own, where it is made.",
    )

    @field_validator("allow")
    @classmethod
    def _ranges(cls, value: list[str]) -> list[str]:
        """Refuse what is no range of addresses."""
        for one in value:
            ip_network(one)
        return value


class TaskSize(Settings):
    """What the main container of one task gets, with what its helpers need; rounded up to what Fargate offers."""

    cpu: int = Field(default=512, ge=256, le=16384, description="CPU units; 1024 are a core.")
    memory_mb: int = Field(default=1024, ge=512, le=122880, description="Memory in MiB.")
    disk_gb: int = Field(default=21, ge=21, le=200, description="Disk of the task, which ends with it, in GiB.")


class ScalingSettings(Settings):
    """How many tasks serve one model."""

    at_least: int | None = Field(default=None, ge=1, le=8, description="Default: 1, and 2 in production.")
    at_most: int = Field(
        default=4,
        ge=1,
        le=8,
        description="The most tasks. The network's names tell Prometheus of no more than eight; take larger ones then.",
    )
    requests_per_minute: int = Field(
        default=30_000, ge=1, description="Requests a minute which one task is to answer, on average."
    )


class AwsBuildSettings(Settings):
    """How our own images are built."""

    args: dict[str, str] = Field(
        default_factory=dict[str, str], description="Build argument -> value; they can be read in the image."
    )


class AwsSettings(Settings):
    """How the platform runs on AWS; used by `target: aws` alone."""

    region: str | None = Field(
        default=None, pattern=r"^[a-z]{2}(-[a-z]+)+-\d$", description="Region.", examples=["eu-central-1"]
    )
    account: str | None = Field(
        default=None,
        pattern=r"^\d{12}$",
        description="The account this stack belongs to; any other one is refused.",
        examples=["123456789012"],
    )
    domain: str | None = Field(
        default=None,
        pattern=r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}$",
        max_length=180,
        description="The stack's own domain; services answer at SERVICE.DOMAIN.",
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
        "Default: whether the environment is called prod or production.",
    )
    size: Literal["small", "medium", "large"] = Field(
        default="small", description="Size of the environment: of tasks and of the database."
    )
    architecture: Literal["X86_64", "ARM64"] = Field(default="X86_64", description="The processors of tasks.")
    network: NetworkChoice = Field(default=NetworkChoice(), description="The VPC: existing or made.")
    ingress: IngressSettings = Field(default=IngressSettings(), description="Who reaches the load balancer.")
    cluster: ClusterChoice = Field(default=ClusterChoice(), description="The ECS cluster: existing or made.")
    database: DatabaseChoice = Field(default=DatabaseChoice(), description="Postgres: existing or made.")
    bucket: BucketChoice = Field(default=BucketChoice(), description="The bucket: existing or made.")
    certificate: CertificateChoice = Field(
        default=CertificateChoice(), description="The certificate of the load balancer: existing or made."
    )
    metrics: MetricsChoice = Field(default=MetricsChoice(), description="Where metrics are kept.")
    lake_metadata: Literal["dynamodb", "postgres"] = Field(
        default="dynamodb", description="Where lakeFS keeps what it knows of its objects."
    )
    scaling: ScalingSettings = Field(default=ScalingSettings(), description="How many tasks serve one model.")
    services: dict[str, TaskSize] = Field(
        default_factory=dict[str, TaskSize],
        description="Service name, `training` or `jobs` -> what its task gets instead of what `size` says.",
    )
    log_days: Literal[1, 3, 5, 7, 14, 30, 60, 90, 120, 180, 365, 400] | None = Field(
        default=None, description="Days logs are kept. Default: 14, and 90 in production."
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
    build: AwsBuildSettings = Field(default=AwsBuildSettings(), description="How our own images are built.")
    images: dict[str, str] = Field(
        default_factory=dict[str, str],
        description="Image name (serving, mlflow, runtime, training, content, lakefs, prometheus, alertmanager, "
        "grafana) -> an image which is there already; it is not built or copied then.",
    )
    tags: dict[str, str] = Field(
        default_factory=dict[str, str], description="Further tags of everything that is made, such as `cost-center`."
    )

    def is_production(self, environment: str) -> bool:
        """Return whether `environment` is guarded as production."""
        return environment in {"prod", "production"} if self.production is None else self.production

    def problems(self, services: list[str]) -> Iterator[Problem]:
        """Yield what does not hold on this target; `services` are the names of the stack's services."""
        if self.region is None:
            yield Problem(("aws", "region"), "is missing", None, "name the AWS region, such as eu-central-1")
        if self.domain is None:
            yield Problem(
                ("aws", "domain"), "is missing", None, "name the stack's own domain, such as flights.ml.example.org"
            )
        if self.zone is None and self.certificate.existing is None:
            yield Problem(
                ("aws", "certificate"),
                "can only be made where Route 53 can show that the domain is yours",
                None,
                "name aws.zone, or bring one as aws.certificate.existing",
            )
        if not self.ingress.allow and (self.ingress.public or self.network.existing):
            yield Problem(
                ("aws", "ingress", "allow"),
                "is missing, and nobody could come in",
                None,
                "name the address ranges which are let in",
            )
        at_least = self.scaling.at_least or 1
        if at_least > self.scaling.at_most:
            yield Problem(
                ("aws", "scaling", "at_most"), "is less than at_least", self.scaling.at_most, f"use {at_least} or more"
            )
        known = [*services, "training", "jobs"]
        for name in self.services:
            if name not in known:
                yield Problem(("aws", "services", name), "no such service", name, f"use one of {', '.join(known)}")
        for name, image in self.images.items():
            if ":" not in image.rpartition("/")[2] or image.rpartition(":")[2] == "latest":
                yield Problem(
                    ("aws", "images", name), "is not pinned", image, "name its version, or its digest as @sha256:..."
                )
        for key in self.tags:
            if key.startswith(("aws:", "tidemill:")):
                yield Problem(("aws", "tags", key), "is not yours to set", key, "choose another name")
