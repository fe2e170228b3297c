"""The block `aws:` of a stack config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator
from tidemill.runtime.settings import Settings

from ..checks import Problem

__all__ = [
    "AwsSettings",
    "BucketChoice",
    "CertificateChoice",
    "ClusterChoice",
    "DatabaseChoice",
    "ExistingDatabase",
    "ExistingNetwork",
    "NetworkArgs",
    "NetworkChoice",
]


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

    vpc: str = Field(pattern=r"^vpc-[0-9a-f]+$", description="Its id.")
    private_subnets: list[str] = Field(min_length=2, description="Ids of its private subnets, in two zones at least.")
    public_subnets: list[str] = Field(min_length=2, description="Ids of its public subnets, for the load balancer.")


class NetworkArgs(Settings):
    """A VPC which is made."""

    cidr: str = Field(default="10.0.0.0/16", pattern=r"^\d+\.\d+\.\d+\.\d+/\d+$", description="Its addresses.")
    zones: int = Field(default=2, ge=2, le=3, description="Availability zones.")


class NetworkChoice(_Choice):
    """The VPC."""

    existing: ExistingNetwork | None = Field(default=None, description="One which is there already.")
    args: NetworkArgs | None = Field(default=None, description="How it is made.")


class ClusterChoice(_Choice):
    """The ECS cluster."""

    existing: str | None = Field(default=None, pattern=r"^arn:aws[a-z-]*:ecs:\S+$", description="Its ARN.")


class ExistingDatabase(Settings):
    """A Postgres server which is there already."""

    host: str = Field(min_length=1, description="Its address.")
    port: int = Field(default=5432, ge=1, le=65535, description="Its port.")
    secret: str = Field(
        pattern=r"^arn:aws[a-z-]*:secretsmanager:\S+$",
        description="ARN of the secret with `username` and `password` of a user who may create databases.",
    )
    security_group: str = Field(pattern=r"^sg-[0-9a-f]+$", description="The security group which lets services in.")


class DatabaseChoice(_Choice):
    """The Postgres server."""

    existing: ExistingDatabase | None = Field(default=None, description="One which is there already.")


class BucketChoice(_Choice):
    """The bucket."""

    existing: str | None = Field(default=None, min_length=3, description="Name of one which is there already.")


class CertificateChoice(_Choice):
    """The certificate of the load balancer."""

    existing: str | None = Field(default=None, pattern=r"^arn:aws[a-z-]*:acm:\S+$", description="Its ARN.")


class AwsSettings(Settings):
    """How the platform runs on AWS; used by `target: aws` alone."""

    region: str | None = Field(default=None, pattern=r"^[a-z]{2}(-[a-z]+)+-\d$", description="Region, eu-central-1.")
    size: Literal["small", "medium", "large"] = Field(
        default="small", description="Size of the environment: of tasks and of the database."
    )
    network: NetworkChoice = Field(default=NetworkChoice(), description="The VPC: existing or made.")
    cluster: ClusterChoice = Field(default=ClusterChoice(), description="The ECS cluster: existing or made.")
    database: DatabaseChoice = Field(default=DatabaseChoice(), description="Postgres: existing or made.")
    bucket: BucketChoice = Field(default=BucketChoice(), description="The bucket: existing or made.")
    certificate: CertificateChoice = Field(
        default=CertificateChoice(), description="The certificate of the load balancer: existing or made."
    )

    def problems(self, services: list[str]) -> Iterator[Problem]:
        """Yield what does not hold on this target; `services` are the names of the stack's services."""
        del services
        if self.region is None:
            yield Problem(("aws", "region"), "is missing", None, "name the AWS region, such as eu-central-1")
